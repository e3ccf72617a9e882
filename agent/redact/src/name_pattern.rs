//! Patterns for the names of variables.
//!
//! Time: at most the product of both lengths; names and patterns are short.

use std::str::FromStr;

/// A pattern for names of variables: `*` matches any text, `?` one byte; case is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

/// A pattern that would match every variable, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a variable, with * and ? as wildcards, such as 'DEPLOY_*'")]
pub struct InvalidNamePattern;

impl FromStr for NamePattern {
    type Err = InvalidNamePattern;

    fn from_str(text: &str) -> Result<Self, InvalidNamePattern> {
        let has_literal = text.bytes().any(|byte| !matches!(byte, b'*' | b'?'));
        match has_literal && !text.contains('=') {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidNamePattern),
        }
    }
}

impl NamePattern {
    /// Whether it matches a name.
    pub fn matches(&self, name: &[u8]) -> bool {
        matches(self.0.as_bytes(), name)
    }
}

/// Whether a name matches a pattern. After a mismatch the last star takes one more byte.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    let mut star = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(letter) if *letter == b'?' || letter.eq_ignore_ascii_case(&name[in_name]) => {
                at += 1;
                in_name += 1;
            }
            _ => match star {
                Some((star_at, matched_from)) => {
                    star = Some((star_at, matched_from + 1));
                    at = star_at + 1;
                    in_name = matched_from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_in_any_case() {
        for (pattern, name, expected) in [
            ("*TOKEN*", "npm_token_x", true),
            ("*_KEY", "A_KEY", true),
            ("*_KEY", "A_KEY_", false),
            ("*_key", "KEY_KEY", true),
            ("A?C", "abc", true),
            ("A?C", "ac", false),
            ("A*B*C", "AxxByBzzC", true),
            ("A*B*C", "AxxC", false),
            ("PWD", "OLDPWD", false),
        ] {
            let parsed: NamePattern = pattern.parse().expect("a pattern");
            assert_eq!(
                parsed.matches(name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
        for nonsense in ["", "*", "?*", "A=b"] {
            nonsense.parse::<NamePattern>().expect_err("refused");
        }
    }
}
