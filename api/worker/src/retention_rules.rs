//! How long runs and the audit log are kept: an age or forever, by rules over the labels of runs.
//!
//! A run is kept by the first rule that one of its labels matches, and by [`Retention::otherwise`]
//! if none does.

use std::fmt;
use std::str::FromStr;

use chrono::Utc;

use crate::age::Age;
use runcast_store::retention::Horizons;

/// How long something is kept; `None` is forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep(Option<Age>);

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let age = text.parse().map(|age| Self(Some(age)));
        age.map_err(|expected| format!("{expected}, or forever"))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(age) => age.fmt(f),
            None => f.write_str("forever"),
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self(Some(Age::days(90)))
    }
}

impl Keep {
    /// The age at which it is removed, if it ever is.
    pub const fn age(self) -> Option<Age> {
        self.0
    }
}

/// Rules for labels, as `NAME=VALUE:AGE,...`: the first one that matches counts. In a name or value
/// `\` escapes a comma, a colon, an equals sign or itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionRules(Vec<RetentionRule>);

/// Keeps runs with the label `name=value` for `keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RetentionRule {
    name: String,
    value: String,
    keep: Keep,
}

impl FromStr for RetentionRules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rules: Vec<RetentionRule> = Vec::new();
        for piece in split(text, ',') {
            let rule = RetentionRule::parse(piece)
                .map_err(|reason| format!("rule {:?}: {reason}", piece.trim()))?;
            if rules
                .iter()
                .any(|earlier| (&earlier.name, &earlier.value) == (&rule.name, &rule.value))
            {
                return Err(format!(
                    "rule {:?}: an earlier one is for the same label",
                    piece.trim()
                ));
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }
}

impl RetentionRule {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=VALUE:AGE, such as project=search:7d".to_owned();
        let [label, keep] = split(text.trim(), ':')[..] else {
            return Err(expected());
        };
        let [name, value] = split(label, '=')[..] else {
            return Err(expected());
        };
        let (name, value) = (unescape(name), unescape(value));
        if name.is_empty() || value.is_empty() {
            return Err(expected());
        }
        Ok(Self {
            name,
            value,
            keep: keep.parse()?,
        })
    }
}

/// The pieces between separators that are not escaped by `\`.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut pieces, mut from, mut is_escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        if !is_escaped && character == separator {
            pieces.push(&text[from..at]);
            from = at + separator.len_utf8();
        }
        is_escaped = !is_escaped && character == '\\';
    }
    pieces.push(&text[from..]);
    pieces
}

/// A piece without the escaping `\`.
fn unescape(piece: &str) -> String {
    let (mut out, mut is_escape) = (String::new(), false);
    for character in piece.chars() {
        is_escape = !is_escape && character == '\\';
        if !is_escape {
            out.push(character);
        }
    }
    out
}

/// How long the audit log is kept by default.
pub const DEFAULT_AUDIT_RETENTION: Keep = Keep(Some(Age::days(365)));

/// How long runs and the audit log are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Runs with a label that a rule matches.
    pub rules: RetentionRules,
    /// All other runs.
    pub otherwise: Keep,
    /// The audit log: who changed what about access.
    pub audit: Keep,
}

impl Retention {
    /// The moments before which runs are too old now; none if no run ever is.
    pub(crate) fn horizons(&self) -> Option<Horizons> {
        let now = Utc::now();
        let horizon = |keep: Keep| keep.age().map(|age| age.horizon(now));
        let rules = self.rules.0.iter();
        let horizons = Horizons {
            rules: rules
                .map(|rule| (rule.name.clone(), rule.value.clone(), horizon(rule.keep)))
                .collect(),
            otherwise: horizon(self.otherwise),
        };
        horizons.latest().is_some().then_some(horizons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_kept_for_an_age_or_forever() {
        for text in ["1d", "12h", "36500d", "forever"] {
            assert_eq!(text.parse::<Keep>().expect(text).to_string(), text);
        }
        assert_eq!(Keep::default().to_string(), "90d");
        for text in ["", "0d", "90", "never"] {
            let error = text.parse::<Keep>().expect_err(text);
            assert!(
                error.contains("90d") && error.contains("forever"),
                "{error}"
            );
        }
    }

    #[test]
    fn rules_match_labels_and_backslash_escapes() {
        let rules: RetentionRules = r"project=search:7d, team=a\,b\:c\=d\\:forever"
            .parse()
            .expect("rules");
        let all: Vec<_> = rules
            .0
            .iter()
            .map(|rule| (&*rule.name, &*rule.value, rule.keep.to_string()))
            .collect();
        assert_eq!(
            all,
            [
                ("project", "search", "7d".to_owned()),
                ("team", r"a,b:c=d\", "forever".to_owned())
            ]
        );
    }

    #[test]
    fn errors_name_the_bad_rule() {
        for (text, bad) in [
            ("", r#"rule """#),
            ("project=search", "\"project=search\""),
            ("a=b:1d,project:7d", "\"project:7d\""),
            ("a=b:1d,c=d:soon", "\"c=d:soon\""),
            ("=b:1d", "\"=b:1d\""),
            ("a=:1d", "\"a=:1d\""),
            ("a=b=c:1d", "\"a=b=c:1d\""),
            ("a=b:1d,", "\"\""),
            ("a=b:1d,a=b:2d", "\"a=b:2d\""),
        ] {
            let error = text.parse::<RetentionRules>().expect_err(text);
            assert!(error.contains(bad), "{error}");
        }
    }
}
