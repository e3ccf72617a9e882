//! Words that occur in ordinary output, so that masking them would make it unreadable.
//!
//! Data: `common_words.txt`, some five thousand words of at least six letters: those that most of
//! 427 Rust crates or 22,000 manual pages have in common, and names of programs, images and parts
//! of installations. Given names and words that people like as passwords are left out: a word that
//! rarely stands in output can be masked. It is searched from front to back, once per value.

/// Letters of the shortest words of the list.
const MIN_WORD_BYTES: usize = 6;

const COMMON_WORDS: &str = include_str!("common_words.txt");

/// Words that say that a text stands in place of a secret.
const PLACEHOLDER_WORDS: [&str; 24] = [
    "change",
    "changeit",
    "changeme",
    "default",
    "disabled",
    "dummy",
    "empty",
    "example",
    "fake",
    "fixme",
    "here",
    "insert",
    "no",
    "none",
    "not",
    "null",
    "placeholder",
    "replace",
    "required",
    "sample",
    "todo",
    "undefined",
    "unset",
    "your",
];

/// Words beside them.
const FILLER_WORDS: [&str; 24] = [
    "a", "an", "any", "api", "apikey", "foo", "bar", "in", "it", "key", "me", "my", "on",
    "password", "please", "secret", "set", "some", "the", "this", "to", "token", "value", "with",
];

/// Whether a value is one word that is common in output.
pub(super) fn is_common_word(value: &[u8]) -> bool {
    let is_long = value.len() >= MIN_WORD_BYTES;
    let mut words = COMMON_WORDS.split_ascii_whitespace();
    is_long && words.any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a value says that no secret is set: `not-set`, `<your token here>`, `${TOKEN}`.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    let inner =
        |start: &[u8], end: &[u8]| {
            let rest = value.strip_prefix(start)?.strip_suffix(end)?;
            let mut rest = rest.iter();
            Some(rest.all(|byte| {
                byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-' | b' ' | b'.')
            }))
        };
    let brackets: [(&[u8], &[u8]); 4] =
        [(b"<", b">"), (b"${", b"}"), (b"{{", b"}}"), (b"$(", b")")];
    if brackets
        .iter()
        .any(|(start, end)| inner(start, end) == Some(true))
    {
        return true;
    }
    let words = value.split(|byte| !byte.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    let is_one_of = |word: &[u8], known: &[&str]| {
        let mut known = known.iter();
        known.any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
    };
    let mut is_telling = false;
    for word in words {
        is_telling |= is_one_of(word, &PLACEHOLDER_WORDS);
        if !is_one_of(word, &PLACEHOLDER_WORDS) && !is_one_of(word, &FILLER_WORDS) {
            return false;
        }
    }
    is_telling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_output_are_common_and_passwords_are_not() {
        for word in [
            "docker",
            "undefined",
            "Postgres",
            "production",
            "staging",
            "customer",
        ] {
            assert!(is_common_word(word.as_bytes()), "{word}");
        }
        for word in [
            "hunter22", "sunshine", "elephant", "docker1", "kube", "jennifer", "",
        ] {
            assert!(!is_common_word(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn a_text_that_says_that_nothing_is_set_is_a_placeholder() {
        for text in [
            "not-set",
            "<your token here>",
            "${DB_PASSWORD}",
            "CHANGE_ME",
            "{{ token }}",
        ] {
            assert!(is_placeholder(text.as_bytes()), "{text}");
        }
        for text in [
            "correct-horse-9",
            "my-cat",
            "",
            "--",
            "<p4ss>",
            "secret-value",
            "my-token",
        ] {
            assert!(!is_placeholder(text.as_bytes()), "{text}");
        }
    }
}
