//! Which values can be redacted. A value that occurs in ordinary text is rejected: masking it would
//! make the text unreadable, and it protects nothing.
//!
//! What is ordinary depends on what says that the value is a secret, see [`check`].
//!
//! An error says why a value is rejected, and never contains the value.

use super::common_words::{is_common_word, is_placeholder};
use super::shape::{is_identifier, is_random};

/// The text that replaces a secret. It is the same for all, so it reveals nothing.
pub const MASK: &[u8] = b"[redacted]";

/// Shortest value that is redacted. Five characters occur by chance in any long log, and a password
/// that short protects nothing.
pub(super) const MIN_SECRET_BYTES: usize = 6;

/// Longest value: its forms take up to a thousand times its size in memory. Keys and kubeconfigs
/// fit.
pub(super) const MAX_SECRET_BYTES: usize = 16 * 1024;

/// Limit for all values and their parts together.
pub(super) const MAX_TOTAL_BYTES: usize = 96 * 1024;

/// Digits of the shortest number that is redacted: shorter ones are counts, ports, sizes and dates.
const MIN_DIGITS: usize = 10;

/// What says that a value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The user names the value, or its variable.
    User,
    /// A name such as `DB_PASSWORD`.
    Name,
    /// It stands in a secret.
    Line,
    /// A name such as `STRIPE_KEY`, which keys of data have as well.
    KeyName,
    /// Nothing but how it looks.
    Shape,
}

/// Words that are not even redacted if the user names them: they would make all output unreadable.
const SETTING_WORDS: [&str; 24] = [
    "anonymous",
    "changeme",
    "default",
    "development",
    "disabled",
    "disable",
    "enabled",
    "enable",
    "example",
    "external",
    "internal",
    "localhost",
    "optional",
    "passwd",
    "password",
    "private",
    "production",
    "public",
    "required",
    "runcast",
    "secret",
    "staging",
    "testing",
    "unknown",
];

/// Why a value cannot be redacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretValue {
    /// Fewer than 6 bytes.
    #[error("shorter than {MIN_SECRET_BYTES} bytes")]
    TooShort,
    /// A word, a small number, or one repeated character.
    #[error("too common in ordinary text")]
    TooCommon,
    /// A name of a program, a table, a file.
    #[error("looks like an identifier")]
    Identifier,
    /// A key of a table, a cache or a queue.
    #[error("a key of data, not a secret")]
    DataKey,
    /// More than 16 KiB.
    #[error("longer than {} KiB", MAX_SECRET_BYTES / 1024)]
    TooLong,
    /// More than 96 KiB together with the values that are redacted already.
    #[error("all values together are longer than {} KiB", MAX_TOTAL_BYTES / 1024)]
    TotalTooLong,
}

/// The part of a value that is searched: without the line end that files and shells add.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Checks a value that [`trimmed`] returned. The less says that it is a secret, the less it may
/// look like ordinary text:
///
/// - a value that the user names is only rejected if it is short, a small number, or one of
///   [`SETTING_WORDS`];
/// - a password may be weak, such as `hunter22` or `correct-horse-9`, but neither one word that is
///   common in output nor a placeholder;
/// - a key may not look like an identifier either, such as `created_at`.
pub(super) fn check(value: &[u8], evidence: Evidence) -> Result<(), InvalidSecretValue> {
    if value.len() < MIN_SECRET_BYTES {
        return Err(InvalidSecretValue::TooShort);
    }
    if value.len() > MAX_SECRET_BYTES {
        return Err(InvalidSecretValue::TooLong);
    }
    let is_small_number = value.len() < MIN_DIGITS && value.iter().all(u8::is_ascii_digit);
    let is_one_byte = value.iter().all(|byte| *byte == value[0]);
    let is_punctuation = !value
        .iter()
        .any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    let is_word = SETTING_WORDS
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    // It would occur in every mask.
    let is_in_mask = memchr::memmem::find(MASK, value).is_some();
    let is_ordinary = is_small_number || is_one_byte || is_punctuation || is_word || is_in_mask;
    let is_common = || is_common_word(value) || is_placeholder(value);
    match evidence {
        _ if is_ordinary => Err(InvalidSecretValue::TooCommon),
        Evidence::User => Ok(()),
        _ if is_common() => Err(InvalidSecretValue::TooCommon),
        Evidence::KeyName if is_identifier(value) => Err(InvalidSecretValue::Identifier),
        Evidence::Shape if !is_random(value) && !value.contains(&b'\n') => {
            Err(InvalidSecretValue::Identifier)
        }
        Evidence::Name | Evidence::Line | Evidence::KeyName | Evidence::Shape => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_common_in_ordinary_text_are_rejected() {
        use InvalidSecretValue::{Identifier, TooCommon, TooShort};
        for (value, by_user, by_name, by_key) in [
            ("true", Err(TooShort), Err(TooShort), Err(TooShort)),
            ("12345", Err(TooShort), Err(TooShort), Err(TooShort)),
            ("20261121", Err(TooCommon), Err(TooCommon), Err(TooCommon)),
            (
                "xxxxxxxxxxxx",
                Err(TooCommon),
                Err(TooCommon),
                Err(TooCommon),
            ),
            ("******", Err(TooCommon), Err(TooCommon), Err(TooCommon)),
            ("Password", Err(TooCommon), Err(TooCommon), Err(TooCommon)),
            ("redacted", Err(TooCommon), Err(TooCommon), Err(TooCommon)),
            ("docker", Ok(()), Err(TooCommon), Err(TooCommon)),
            ("undefined", Ok(()), Err(TooCommon), Err(TooCommon)),
            ("your-token-here", Ok(()), Err(TooCommon), Err(TooCommon)),
            ("customer_id", Ok(()), Ok(()), Err(Identifier)),
            ("node-modules-v3", Ok(()), Ok(()), Err(Identifier)),
            ("correct-horse-9", Ok(()), Ok(()), Err(Identifier)),
            ("sunshine", Ok(()), Ok(()), Err(Identifier)),
            ("hunter22", Ok(()), Ok(()), Ok(())),
            ("s3cret", Ok(()), Ok(()), Ok(())),
            ("4929123412341234", Ok(()), Ok(()), Ok(())),
            ("8d777f385d3dfec8815d20f7496026dc", Ok(()), Ok(()), Ok(())),
        ] {
            for (evidence, expected) in [
                (Evidence::User, by_user),
                (Evidence::Name, by_name),
                (Evidence::KeyName, by_key),
            ] {
                assert_eq!(
                    check(value.as_bytes(), evidence),
                    expected,
                    "{value} {evidence:?}"
                );
            }
        }
        assert_eq!(
            check(&[b'a', b'b'].repeat(MAX_SECRET_BYTES), Evidence::User),
            Err(InvalidSecretValue::TooLong)
        );
    }
}
