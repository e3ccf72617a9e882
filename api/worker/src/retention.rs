//! How long runs are kept, by rules over their labels, and the log of changes of access; and the job that removes what is
//! older.
//!
//! A run goes by the first rule that one of its labels fits, and by [`Retention::otherwise`] if none does. Where a
//! whole day of runs is due its partition is dropped; else runs go one by one, their rows in bounded steps. A run with
//! a living agent stays. What the archive holds of a run goes with it: its object is noted as leaving by the
//! same transaction, and deleted afterwards ([`super::archive`]).

use std::fmt;
use std::str::FromStr;

use chrono::Utc;
use tracing::{info, warn};

use super::age::Age;
use super::archive;
use crate::context::Worker;
use crate::error::TaskError;
use runcast_store::retention::Horizons;

/// How long something is kept; none: for ever.
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
    /// The age at which it goes, if it does.
    #[must_use]
    pub const fn age(self) -> Option<Age> {
        self.0
    }
}

/// Rules for labels, as `NAME=VALUE:AGE,...`: the first that fits counts. In a name or value `\` takes a comma, a
/// colon, an equals sign or itself for what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionRules(Vec<RetentionRule>);

/// One of them.
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
                .any(|one| (&one.name, &one.value) == (&rule.name, &rule.value))
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
        let form = || "expected NAME=VALUE:AGE, such as project=search:7d".to_owned();
        let [label, keep] = split(text.trim(), ':')[..] else {
            return Err(form());
        };
        let [name, value] = split(label, '=')[..] else {
            return Err(form());
        };
        let (name, value) = (plain(name), plain(value));
        if name.is_empty() || value.is_empty() {
            return Err(form());
        }
        Ok(Self {
            name,
            value,
            keep: keep.parse()?,
        })
    }
}

/// The pieces between separators that no `\` stands before.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut pieces, mut from, mut taken) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        if !taken && character == separator {
            pieces.push(&text[from..at]);
            from = at + separator.len_utf8();
        }
        taken = !taken && character == '\\';
    }
    pieces.push(&text[from..]);
    pieces
}

/// A piece without the `\` that take what follows them for what it is.
fn plain(piece: &str) -> String {
    let (mut out, mut taken) = (String::new(), false);
    for character in piece.chars() {
        taken = !taken && character == '\\';
        if !taken {
            out.push(character);
        }
    }
    out
}

/// How long the log of changes of access is kept if nothing is said.
pub const AUDIT: Keep = Keep(Some(Age::days(365)));

/// How long runs, and what is told of access, are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Those with a label that a rule is for.
    pub rules: RetentionRules,
    /// All others.
    pub otherwise: Keep,
    /// The log of who changed what about access.
    pub audit: Keep,
}

impl Retention {
    /// Up to when runs are too old, at this moment; none if nothing ever is.
    fn horizons(&self) -> Option<Horizons> {
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

/// Removes all runs that are too old, and entries of the log.
///
/// # Errors
/// [`TaskError`]; what was removed until then stays so.
pub(super) async fn remove_old(worker: &Worker) -> Result<(), TaskError> {
    let store = &worker.store;
    // First: it needs nothing that runs may have to wait for.
    if let Some(age) = worker.rules.retention.audit.age() {
        let entries = store.remove_audit_before(age.horizon(Utc::now())).await?;
        if entries > 0 {
            info!(
                entries,
                "removed entries of the log of access that are too old"
            );
        }
    }
    if let Some(horizons) = worker.rules.retention.horizons() {
        for day in store.days_before(&horizons).await? {
            let removed = store.remove_from_day(&day, &horizons).await?;
            if removed.runs > 0 || removed.whole {
                let (runs, whole) = (removed.runs, removed.whole);
                info!(day = %day.day, runs, whole, "removed runs that are too old");
            }
            if let Some(run) = removed.lives {
                warn!(day = %day.day, %run, "a run that is too old is kept: it has a living agent");
            }
        }
        let rows = store.remove_rows_of_gone_runs().await?;
        if rows > 0 {
            info!(rows, "removed the events of runs that are gone");
        }
    }
    archive::delete_leaving(worker).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_kept_for_an_age_or_for_ever() {
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
    fn rules_are_for_labels() {
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
    fn a_bad_rule_is_named() {
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
