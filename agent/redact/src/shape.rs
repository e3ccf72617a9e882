//! What a value looks like, without its name: like words of a program, or like nothing but a
//! secret.
//!
//! A value is cut at everything that is not a letter or a digit. A part of it looks like words if
//! it is short, a number, or letters that can be spoken, in the spellings of programs: `customer`,
//! `CUSTOMER`, `customerId`, `node18`. Time: one pass.

/// Parts up to this length look like anything.
const MAX_SHORT_BYTES: usize = 5;

/// Digits that may follow a word, as in `node18`.
const MAX_WORD_DIGITS: usize = 2;

/// Shortest value that its shape alone makes a secret.
const MIN_RANDOM_BYTES: usize = 8;

/// Most consonants in a row in a word, as in `length`.
const MAX_CONSONANTS: usize = 4;

/// Whether a value is an identifier, a path, a version or a list of words: `customer_id`,
/// `node-modules-v3`, `us-east-1`. One word with a number behind it is none, since passwords are
/// made like that.
pub(super) fn is_identifier(value: &[u8]) -> bool {
    let is_separator =
        |byte: &u8| matches!(byte, b'-' | b'_' | b'.' | b'/' | b':' | b',' | b' ' | b'@');
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || is_separator(byte);
    let has_separator = value.iter().any(is_separator);
    let has_digit = value.iter().any(u8::is_ascii_digit);
    let has_letter = value.iter().any(u8::is_ascii_alphabetic);
    let is_abbreviation = letters_before_digits(value).is_some_and(|letters| letters <= 3);
    value.iter().all(is_plain)
        && parts(value).all(is_wordlike)
        && (has_separator || has_letter && (!has_digit || is_abbreviation))
}

/// Whether a value can hardly be anything but a secret.
pub(super) fn is_random(value: &[u8]) -> bool {
    value.len() >= MIN_RANDOM_BYTES
        && !value.iter().any(u8::is_ascii_whitespace)
        && !is_address(value)
        && !is_uuid(value)
        && !parts(value).all(is_wordlike)
}

/// Whether a value is the address of a page or a mailbox, without a secret in it.
pub(super) fn is_address(value: &[u8]) -> bool {
    let has = |text: &[u8]| memchr::memmem::find(value, text).is_some();
    let is_plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    match memchr::memchr(b'@', value) {
        Some(at) => {
            let (user, host) = (&value[..at], &value[at + 1..]);
            user.iter().all(is_plain) && host.iter().all(is_plain) && host.contains(&b'.')
        }
        None => has(b"://") && !value.contains(&b'?'),
    }
}

/// Whether a value switches something on or off.
pub(super) fn is_switch(value: &[u8]) -> bool {
    let switches = [
        "true", "false", "yes", "no", "on", "off", "none", "null", "0", "1",
    ];
    switches
        .iter()
        .any(|switch| value.eq_ignore_ascii_case(switch.as_bytes()))
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| !byte.is_ascii_alphanumeric())
}

fn is_wordlike(part: &[u8]) -> bool {
    if part.len() <= MAX_SHORT_BYTES || part.iter().all(u8::is_ascii_digit) {
        return true;
    }
    letters_before_digits(part).is_some_and(|letters| {
        let digits = part.len() - letters;
        (digits <= MAX_WORD_DIGITS || letters <= 3) && is_spoken(&part[..letters])
    })
}

/// How many letters a part begins with, if nothing but digits follows them.
fn letters_before_digits(part: &[u8]) -> Option<usize> {
    let letters = part
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    (letters > 0 && part[letters..].iter().all(u8::is_ascii_digit)).then_some(letters)
}

/// Whether letters could be words: few changes of case, vowels, no long rows of consonants.
fn is_spoken(letters: &[u8]) -> bool {
    let is_start = |pair: &&[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    let humps = 1 + letters.windows(2).filter(is_start).count();
    if humps * 3 > letters.len() {
        return false;
    }
    let is_vowel = |byte: &u8| b"aeiouyAEIOUY".contains(byte);
    let vowels = letters.iter().filter(|byte| is_vowel(byte)).count();
    let consonants = letters.split(is_vowel).map(<[u8]>::len).max();
    letters.len() <= MAX_SHORT_BYTES
        || vowels * 6 >= letters.len() && consonants.is_some_and(|row| row <= MAX_CONSONANTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_told_from_keys() {
        for value in [
            "customer_id",
            "created_at",
            "node-modules-v3",
            "undefined",
            "us-east-1",
            "sha256",
            "userId",
            "HTTP_X_REQUEST_ID",
            "com.example.app",
            "/var/lib/app/key.pem",
            "a:b:c",
            "linux-x86_64-cache-v12",
            "2024-05-01",
            "tenantUuid",
            "default",
            "pk",
            "yyyy-MM-dd",
        ] {
            assert!(is_identifier(value.as_bytes()), "{value}");
            assert!(!is_random(value.as_bytes()), "{value}");
        }
        for value in [
            "hunter22",
            "S3cr3tPw9",
            "qzkfjwmxptlabvdu",
            "aGVsbG8gd29ybGQ",
            "9f86d081884c7d65",
            "AbCdEfGhIjKlMnOp",
            "8d777f385d3dfec8815d20f7496026dc",
            "p&ss<w0rd>\"9x7",
            "0123456789",
            "x-9f86d081884c7d65",
        ] {
            assert!(!is_identifier(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn only_what_can_be_nothing_else_is_random() {
        for value in [
            "9f86d081884c7d65",
            "aGVsbG8gd29ybGQ",
            "AbCdEfGhIjKlMnOp",
            "qzkfjwmxptlabvdu",
            "S3cr3tPw9",
            "x-9f86d081884c7d65",
        ] {
            assert!(is_random(value.as_bytes()), "{value}");
        }
        for value in [
            "svc",
            "my-project-123456",
            "https://oauth2.googleapis.com/token",
            "hunter22",
            "svc@my-project.iam.gserviceaccount.com",
            "123456789012345678901",
            "service_account",
            "123e4567-e89b-12d3-a456-426614174000",
            "a sentence of words",
            "10.0.0.1:5432",
            "2026-11-30T20:31:01Z",
            "eu-central-1",
            "production",
        ] {
            assert!(!is_random(value.as_bytes()), "{value}");
        }
    }
}
