//! Where a secret stands in one word of a command line: in an assignment, JSON, a header, an
//! address, behind a short option, or as the second half of `user:password`.
//!
//! Positions are indexes of the word. Time: a few passes over it.

use std::ops::Range;

use super::address;
use super::secret_name::NameClass;
use super::shape;

/// Options whose value is `user:password`.
pub(super) const USER_OPTIONS: [&str; 5] = ["-u", "-U", "--user", "--proxy-user", "--auth"];

/// Long options that begin like `-p` and a password.
const LONG_P_OPTIONS: [&str; 4] = ["print0", "parallel", "port", "profile"];

/// Longest name that is recognized.
const MAX_NAME_BYTES: usize = 128;

/// Shortest password that is recognized behind `-p` of any program.
const MIN_GLUED_BYTES: usize = 6;

/// The secrets that a word shows by itself.
pub(super) fn in_word(word: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = address::password_ranges(word);
    // `name=value` and `name: value`, anywhere in the word.
    for (at, byte) in word.iter().enumerate() {
        if !matches!(byte, b'=' | b':') || word[at..].starts_with(b"://") {
            continue;
        }
        let is_part = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'-' | b'.' | b'"' | b'\'' | b'\\')
        };
        let start = word[..at]
            .iter()
            .rposition(|byte| !is_part(byte))
            .map_or(0, |last| last + 1);
        let name = word[start..at].trim_ascii();
        let name = name
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\'));
        let name: Vec<u8> = name.take(MAX_NAME_BYTES).collect();
        let name = name.strip_prefix(b"-D").unwrap_or(&name);
        let is_user = USER_OPTIONS.iter().any(|option| name == option.as_bytes()) && *byte == b'=';
        let class = NameClass::of(name);
        if class == NameClass::Other && !is_user {
            continue;
        }
        let value = value_range(word, start, at);
        if is_reference(&word[value.clone()]) {
            continue;
        }
        let is_secret = match class {
            NameClass::Secret => {
                *byte == b'=' || is_spaced(word, at) || word[..at].ends_with(b"\"")
            }
            NameClass::Key | NameClass::Setting => shape::is_random(&word[value.clone()]),
            NameClass::DataKey | NameClass::Other => false,
        };
        match () {
            () if is_user => {
                let password = password_of(&word[value.clone()]);
                ranges.push(value.start + password.start..value.start + password.end);
            }
            () if is_secret => ranges.push(value),
            () => {}
        }
    }
    ranges
}

/// Whether a value names a variable of the shell: `$PASSWORD`, `${PASSWORD}`, `$(cat password)`.
pub(super) fn is_reference(value: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    match value {
        [b'$', b'{' | b'(', ..] => true,
        [b'$', name @ ..] => !name.is_empty() && name.iter().all(is_part),
        _ => false,
    }
}

/// Whether a space or a quote follows a colon.
fn is_spaced(word: &[u8], colon: usize) -> bool {
    matches!(word.get(colon + 1), Some(b' ' | b'"' | b'\''))
}

/// The value of a name that starts at an index and ends at its separator: to the closing quote, or
/// to the end of the field.
fn value_range(word: &[u8], name: usize, separator: usize) -> Range<usize> {
    let skipped = word[separator + 1..]
        .iter()
        .take_while(|byte| **byte == b' ')
        .count();
    let mut start = separator + 1 + skipped;
    start += scheme_length(&word[start..]);
    let is_quote = |byte: &&u8| matches!(byte, b'"' | b'\'');
    // Around the value, or around the name and the value.
    let own = word.get(start).filter(is_quote);
    let outer = word
        .get(name)
        .filter(is_quote)
        .filter(|quote| word[separator - 1] != **quote);
    if own.is_some() {
        start += 1;
    }
    let rest = &word[start..];
    let end = match own.or(outer) {
        Some(quote) => {
            let is_escaped = |at: usize| at > 0 && rest[at - 1] == b'\\';
            memchr::memchr_iter(*quote, rest).find(|at| !is_escaped(*at))
        }
        None => {
            let is_query = memchr::memmem::find(&word[..start], b"://").is_some();
            let is_json = word.first().is_some_and(|byte| matches!(byte, b'{' | b'['));
            // An assignment ends at a space, unless it is all there is.
            let is_inside = name > 0 && word[separator] == b'=';
            rest.iter().position(|byte| match byte {
                b'&' | b'#' => is_query,
                b' ' | b'\t' => is_inside,
                b',' | b'}' => is_json,
                byte => *byte == b'\n',
            })
        }
    };
    start..end.map_or(word.len(), |end| start + end)
}

/// Length of the scheme of an HTTP credential.
pub(super) fn scheme_length(value: &[u8]) -> usize {
    let schemes: [&[u8]; 4] = [b"bearer ", b"basic ", b"token ", b"digest "];
    let scheme = schemes.iter().find(|scheme| {
        let start = value.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    scheme.map_or(0, |scheme| scheme.len())
}

/// Whether a word is an option whose value is a secret.
pub(super) fn is_secret_option(word: &[u8], value: &[u8]) -> bool {
    let name = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-"));
    let Some(name) = name.filter(|name| name.len() > 1 && !name.contains(&b'=')) else {
        return false;
    };
    // `-psecret` is an option and its value.
    let is_glued = !word.starts_with(b"--") && name[0] == b'p';
    match NameClass::of(name) {
        NameClass::Secret => !is_glued || name.starts_with(b"pass") || name.starts_with(b"pw"),
        NameClass::Key | NameClass::Setting => shape::is_random(value),
        NameClass::DataKey | NameClass::Other => false,
    }
}

/// A secret in the same argument as its short option.
pub(super) fn glued(word: &[u8], program: &[&str]) -> Option<Range<usize>> {
    for option in program {
        let option = option.trim_end_matches('+').as_bytes();
        if word.len() > option.len() && word.starts_with(option) {
            return Some(option.len()..word.len());
        }
    }
    let rest = word.strip_prefix(b"-p")?;
    let is_option = LONG_P_OPTIONS.iter().any(|option| {
        word.get(1..)
            .is_some_and(|word| word.starts_with(option.as_bytes()))
    });
    let has = |is: fn(&u8) -> bool| rest.iter().any(is);
    let is_password = rest.len() >= MIN_GLUED_BYTES
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit)
        && !has(|byte| matches!(byte, b'/' | b'=' | b':' | b','));
    (is_password && !is_option).then_some(2..word.len())
}

/// The password of `user:password`, empty if it is none: two numbers are a user and a group, and a
/// number behind a host is a port.
pub(super) fn password_of(text: &[u8]) -> Range<usize> {
    let colon = memchr::memchr(b':', text).filter(|_| memchr::memmem::find(text, b"://").is_none());
    let Some(colon) = colon else {
        return 0..0;
    };
    let (user, password) = (&text[..colon], &text[colon + 1..]);
    let is_host = user.contains(&b'.') || user == b"localhost";
    match is_number(password) && (is_number(user) || is_host) {
        true => 0..0,
        false => colon + 1..text.len(),
    }
}

/// Whether a text consists of digits, as ports, versions and ids do.
pub(super) fn is_number(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'/');
    text.iter().all(is_part)
}
