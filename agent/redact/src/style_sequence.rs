//! Tells escape sequences that only change how text looks from all others.

/// Whether a sequence only changes colours and weights. Such a sequence is kept where a secret
/// around it is masked: otherwise the text behind it would have the wrong colour. It cannot hide a
/// part of the secret, since its numbers are short.
pub(super) fn is_style(sequence: &[u8]) -> bool {
    let parameters = sequence
        .strip_prefix(b"\x1b[")
        .and_then(|rest| rest.strip_suffix(b"m"));
    parameters.is_some_and(|parameters| {
        let numbers = parameters.split(|byte| matches!(byte, b';' | b':'));
        let mut numbers = numbers.into_iter();
        numbers.all(|number| number.len() <= 3 && number.iter().all(u8::is_ascii_digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_numbers_and_separators_are_a_style() {
        for style in ["\x1b[m", "\x1b[01;31m", "\x1b[38:2::1:22:255m"] {
            assert!(is_style(style.as_bytes()), "{style:?}");
        }
        for other in ["\x1b[K", "\x1b[4929m", "\x1b[1", "\x1b]8;;m", "m"] {
            assert!(!is_style(other.as_bytes()), "{other:?}");
        }
    }
}
