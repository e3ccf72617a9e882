//! Which values can be redacted. A value that occurs in ordinary text is rejected: masking it would
//! make the text unreadable, and it protects nothing.
//!
//! An error says why a value is rejected, and never contains the value.

/// The text that replaces a secret. It is the same for all, so it reveals nothing.
pub const MASK: &[u8] = b"[redacted]";

/// Shortest value that is redacted. Five characters occur by chance in any long log, and a password
/// that short protects nothing.
pub(super) const MIN_SECRET_BYTES: usize = 6;

/// Longest value: its forms take about fifty times its size in memory. Keys and kubeconfigs fit.
pub(super) const MAX_SECRET_BYTES: usize = 16 * 1024;

/// Limit for all values together.
pub(super) const MAX_TOTAL_BYTES: usize = 64 * 1024;

/// Digits of the shortest number that is redacted: shorter ones are counts, ports, sizes and dates.
const MIN_DIGITS: usize = 10;

/// Words that settings contain in place of a secret, and that logs contain everywhere.
const COMMON_WORDS: [&str; 26] = [
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
    "nobody",
    "optional",
    "passwd",
    "password",
    "postgres",
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
    /// More than 16 KiB.
    #[error("longer than {} KiB", MAX_SECRET_BYTES / 1024)]
    TooLong,
    /// More than 64 KiB together with the values that are redacted already.
    #[error("all values together are longer than {} KiB", MAX_TOTAL_BYTES / 1024)]
    TotalTooLong,
}

/// The part of a value that is searched: without the line end that files and shells add.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Checks a value that [`trimmed`] returned.
pub(super) fn check(value: &[u8]) -> Result<(), InvalidSecretValue> {
    if value.len() < MIN_SECRET_BYTES {
        return Err(InvalidSecretValue::TooShort);
    }
    if value.len() > MAX_SECRET_BYTES {
        return Err(InvalidSecretValue::TooLong);
    }
    let is_small_number = value.len() < MIN_DIGITS && value.iter().all(u8::is_ascii_digit);
    let is_one_byte = value.iter().all(|byte| *byte == value[0]);
    let is_word = COMMON_WORDS
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    // It would occur in every mask.
    let is_in_mask = memchr::memmem::find(MASK, value).is_some();
    if is_small_number || is_one_byte || is_word || is_in_mask {
        return Err(InvalidSecretValue::TooCommon);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_common_in_ordinary_text_are_rejected() {
        for (value, expected) in [
            ("true", Err(InvalidSecretValue::TooShort)),
            ("12345", Err(InvalidSecretValue::TooShort)),
            ("20261121", Err(InvalidSecretValue::TooCommon)),
            ("xxxxxxxxxxxx", Err(InvalidSecretValue::TooCommon)),
            ("Password", Err(InvalidSecretValue::TooCommon)),
            ("redacted", Err(InvalidSecretValue::TooCommon)),
            ("4929123412341234", Ok(())),
            ("s3cret", Ok(())),
        ] {
            assert_eq!(check(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(
            check(&[b'a', b'b'].repeat(MAX_SECRET_BYTES)),
            Err(InvalidSecretValue::TooLong)
        );
    }
}
