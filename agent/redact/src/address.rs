//! Passwords in addresses: `scheme://user:password@host`.
//!
//! Programs accept passwords with `/`, `?`, `#` and `@` that are not escaped, although the
//! addresses then mean something else. Such a password ends at the last `@` that a host follows.

use std::ops::Range;

use super::secret_value::MIN_SECRET_BYTES;
use super::shape::is_random;

/// Shortest user in place of a password, as in `https://TOKEN@host`.
const MIN_TOKEN_BYTES: usize = 16;

/// The passwords of all addresses in a text, both as written and decoded.
pub(super) fn passwords(text: &[u8]) -> Vec<Vec<u8>> {
    let mut passwords = Vec::new();
    for range in password_ranges(text) {
        let password = &text[range];
        let decoded = percent_decoded(password);
        if decoded != password {
            passwords.push(decoded);
        }
        passwords.push(password.to_vec());
    }
    passwords
}

/// Where the passwords of all addresses in a text are.
pub(super) fn password_ranges(text: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for scheme in memchr::memmem::find_iter(text, b"://") {
        let start = scheme + 3;
        let rest = &text[start..];
        let is_end = |byte: &u8| {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`')
        };
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        let next = memchr::memmem::find(&rest[..end], b"://").unwrap_or(end);
        let address = &rest[..next];
        for (from, until) in password(address).into_iter().flatten() {
            ranges.push(start + from..start + until);
        }
    }
    ranges
}

/// Where the password is in an address without its scheme; two places if both are plausible.
fn password(address: &[u8]) -> [Option<(usize, usize)>; 2] {
    let is_reserved = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    let authority = address
        .iter()
        .position(is_reserved)
        .unwrap_or(address.len());
    let last = memchr::memrchr_iter(b'@', address).find(|at| is_host(&address[at + 1..]));
    let first = memchr::memrchr(b'@', &address[..authority]);
    let last = match first {
        // `p@ss/w0rd@host`: what follows the first is no host, so it may belong to the password.
        Some(at) => last.filter(|last| *last > at && !is_likely_host(&address[at + 1..authority])),
        None => last.filter(|_| has_open_password(&address[..authority])),
    };
    let first = first.and_then(|at| password_before(address, at));
    let first = first.filter(|(from, until)| last.is_none() || until - from >= MIN_SECRET_BYTES);
    [last.and_then(|at| password_before(address, at)), first]
}

fn password_before(address: &[u8], at: usize) -> Option<(usize, usize)> {
    match memchr::memchr(b':', &address[..at]) {
        Some(colon) if address[..colon] == address[colon + 1..at] => None,
        Some(colon) => Some((colon + 1, at)),
        None if at >= MIN_TOKEN_BYTES && is_random(&address[..at]) => Some((0, at)),
        None => None,
    }
}

/// Whether what looks like `host:port` is the start of `user:password`.
fn has_open_password(authority: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', authority) else {
        return false;
    };
    let (user, rest) = authority.split_at(colon);
    let is_port = rest[1..].iter().all(u8::is_ascii_digit);
    user.is_empty() || !is_port
}

/// Whether a text begins with a host, and a port, path or query follows it.
fn is_host(text: &[u8]) -> bool {
    let end = text
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b',' | b';'));
    let host = &text[..end.unwrap_or(text.len())];
    let is_part = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    !host.is_empty() && host.iter().all(is_part)
}

/// Whether a name has the dots or the port of a host.
fn is_likely_host(host: &[u8]) -> bool {
    host.iter().any(|byte| matches!(byte, b'.' | b':' | b'[')) || host == b"localhost"
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &more[2..];
            }
            _ => {
                decoded.push(*first);
                rest = more;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_ends_at_the_last_host() {
        for (address, expected) in [
            (
                "postgres://me:p%40ssw0rd@host:1/db",
                &["p@ssw0rd", "p%40ssw0rd"][..],
            ),
            ("redis://:pa/ss#w0rd?x@host:6379/0", &["pa/ss#w0rd?x"]),
            (
                "https+influxdb://talon:passw/ord@myserver:8086/stats?ssl=true",
                &["passw/ord"],
            ),
            ("postgresql://user:p@ss/w@rd#1@db/name", &["p@ss/w@rd#1"]),
            ("postgres://user:p@ss@host:5432/db", &["p@ss"]),
            ("mongodb://me:pa?ss@h1:1,h2:2/db", &["pa?ss"]),
            ("https://user:pa?ss@evil", &["pa?ss"]),
            ("amqp://me:pw1@h/%2f amqp://me:pw2@h", &["pw1", "pw2"]),
            (
                "https://9f86d081884c7d659a2feaa0@sentry.example/1",
                &["9f86d081884c7d659a2feaa0"],
            ),
            (
                "https://u:passw0rd@host/a/b@v1",
                &["passw0rd@host/a/b", "passw0rd"],
            ),
            ("https://u:pass@registry.example/@scope/name@1.2", &["pass"]),
            ("redis://same:same@host", &[]),
            ("https://host/a:b@c", &[]),
            ("http://host:8080/image@2x.png", &[]),
            ("https://git@host/a/b@v1", &[]),
            ("https://page.example/?mail=a@b.example", &[]),
            ("see https://peer:9077 or mail ops@corp.example", &[]),
            ("ftp://anonymous@host", &[]),
        ] {
            let found = passwords(address.as_bytes());
            let found: Vec<_> = found
                .iter()
                .map(|one| String::from_utf8_lossy(one))
                .collect();
            assert_eq!(found, expected, "{address}");
        }
    }
}
