//! Which values can be redacted, and why others are refused: a value that ordinary text is full of
//! would tear holes into it, and gives nothing away.
//!
//! A refusal says why, never what.

use super::MASK;

/// Shortest value that is redacted. Five characters occur by chance in any long log; passwords that
/// short protect nothing.
pub(super) const MIN_BYTES: usize = 6;

/// Longest value: its forms take about fifty times its bytes in memory. Keys and kubeconfigs fit.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// All values together.
pub(super) const MAX_TOTAL_BYTES: usize = 64 * 1024;

/// Digits of the shortest number: shorter ones are counts, ports, sizes, dates and times.
const MIN_DIGITS: usize = 10;

/// What stands in settings in place of a secret, and in logs everywhere.
const COMMON: [&str; 26] = [
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

/// Why a value is not redacted. It does not repeat the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Fewer than 6 bytes.
    #[error("shorter than {MIN_BYTES} bytes")]
    Short,
    /// A word, a small number, or one character over and over.
    #[error("too common to be told from ordinary text")]
    Common,
    /// More than 16 KiB.
    #[error("longer than {} KiB", MAX_BYTES / 1024)]
    Long,
    /// More than 64 KiB with what is redacted already.
    #[error("all values together are longer than {} KiB", MAX_TOTAL_BYTES / 1024)]
    TooMany,
}

/// The part of a value that is looked for: without the line end that files and shells leave.
pub(super) fn core(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Whether a value, as [`core`] gives it, can be redacted.
pub(super) fn check(value: &[u8]) -> Result<(), Refused> {
    if value.len() < MIN_BYTES {
        return Err(Refused::Short);
    }
    if value.len() > MAX_BYTES {
        return Err(Refused::Long);
    }
    let is_small_number = value.len() < MIN_DIGITS && value.iter().all(u8::is_ascii_digit);
    let is_one_byte = value.iter().all(|byte| *byte == value[0]);
    let is_word = COMMON
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    // It would be seen in every mask.
    let is_in_mask = memchr::memmem::find(MASK, value).is_some();
    if is_small_number || is_one_byte || is_word || is_in_mask {
        return Err(Refused::Common);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ordinary_text_is_full_of_is_refused() {
        for (value, expected) in [
            ("true", Err(Refused::Short)),
            ("12345", Err(Refused::Short)),
            ("20261121", Err(Refused::Common)),
            ("xxxxxxxxxxxx", Err(Refused::Common)),
            ("Password", Err(Refused::Common)),
            ("redacted", Err(Refused::Common)),
            ("4929123412341234", Ok(())),
            ("s3cret", Ok(())),
        ] {
            assert_eq!(check(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(check(&[b'a', b'b'].repeat(MAX_BYTES)), Err(Refused::Long));
    }
}
