//! Patterns for the names of variables.
//!
//! Time: at most the product of both lengths; names and patterns are short.

use std::str::FromStr;

/// Names of variables: `*` stands for any text, `?` for one byte, letter case does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// A pattern that would take every variable, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a variable, with * and ? for what differs, such as 'DEPLOY_*'")]
pub struct UnusablePattern;

impl FromStr for Pattern {
    type Err = UnusablePattern;

    fn from_str(text: &str) -> Result<Self, UnusablePattern> {
        let says_something = text.bytes().any(|byte| !matches!(byte, b'*' | b'?'));
        match says_something && !text.contains('=') {
            true => Ok(Self(text.to_owned())),
            false => Err(UnusablePattern),
        }
    }
}

impl Pattern {
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        matches(self.0.as_bytes(), name)
    }
}

/// Whether a name is as a pattern says. Goes back to the last star where the text does not go on as the pattern does.
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
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    in_name = taken + 1;
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
            let parsed: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(
                parsed.matches(name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
        for nonsense in ["", "*", "?*", "A=b"] {
            nonsense.parse::<Pattern>().expect_err("refused");
        }
    }
}
