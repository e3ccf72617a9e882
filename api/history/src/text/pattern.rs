//! What is looked for in a line, and what is shown of a line that holds it.
//!
//! A pattern has at most [`MOST_PATTERN_BYTES`], is compiled to at most [`REGEX_BYTES`], and is matched in
//! linear time, whatever it is.

use regex::{Regex, RegexBuilder};
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use utoipa::ToSchema;

use super::lines::TextLine;

/// Longest pattern in bytes.
pub const MOST_PATTERN_BYTES: usize = 1_000;
const REGEX_BYTES: usize = 1024 * 1024;
/// Letters of a line that are shown, around its first match.
const SHOWN: usize = 1_000;
/// Letters before that match.
const SHOWN_BEFORE: usize = 200;
/// Places within a line that are told.
const MOST_PLACES: usize = 16;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    levels: Vec<String>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing to look for.
    #[error("there is nothing to look for")]
    Empty,
    /// Too long.
    #[error("{0} bytes are over the limit of {MOST_PATTERN_BYTES}")]
    TooLong(usize),
    /// Not an expression.
    #[error("{reason} at character {position}")]
    Syntax {
        /// What is wrong.
        reason: String,
        /// Where, in letters from 1.
        position: usize,
    },
    /// An expression that would take too much memory.
    #[error("the expression is too large: over {REGEX_BYTES} bytes when compiled; repeat less")]
    TooLarge,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Match {
    /// The event that the line began with.
    #[schema(value_type = String)]
    pub id: EventId,
    /// Its kind.
    pub kind: &'static str,
    /// Which attempt wrote it.
    pub variation: u16,
    /// Where to.
    pub stream: String,
    /// Its severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The producer's clock, Unix milliseconds.
    pub time: u64,
    /// The line, or the part of a long one around the first match.
    pub text: String,
    /// Something of the line is left out before or behind.
    pub cut: bool,
    /// Where in `text`, from and to, in UTF-16 units as JavaScript counts.
    pub places: Vec<[usize; 2]>,
    /// Lines before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Lines behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

impl Pattern {
    /// A pattern: `text` as it stands or as an expression, in lines of these levels or of any.
    ///
    /// # Errors
    /// [`InvalidPattern`] says what is wrong, and where.
    pub fn new(
        text: &str,
        is_regex: bool,
        ignore_case: bool,
        levels: Vec<String>,
    ) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > MOST_PATTERN_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        let expression = match is_regex {
            true => check(text).map(|()| text.to_owned())?,
            false => regex::escape(text),
        };
        let regex = RegexBuilder::new(&expression)
            .case_insensitive(ignore_case)
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(2 * REGEX_BYTES)
            .build()
            .map_err(|_too_large| InvalidPattern::TooLarge)?;
        Ok(Self { regex, levels })
    }

    /// True if a line holds what is looked for.
    #[must_use]
    pub fn fits(&self, line: &TextLine) -> bool {
        let level = line.level.as_deref();
        let wanted = self.levels.is_empty()
            || level.is_some_and(|level| self.levels.iter().any(|one| one == level));
        wanted && self.regex.is_match(&line.text)
    }

    /// The line at `at` as a match, with lines around it.
    #[must_use]
    pub fn show(&self, lines: &[TextLine], at: usize, context: usize) -> Match {
        let line = &lines[at];
        let places: Vec<_> = self.regex.find_iter(&line.text).take(MOST_PLACES).collect();
        let first = places.first().map_or(0, |place| place.start());
        let before = line.text[..first].chars().rev().take(SHOWN_BEFORE);
        let start = first - before.map(char::len_utf8).sum::<usize>();
        let shown: usize = line.text[start..]
            .chars()
            .take(SHOWN)
            .map(char::len_utf8)
            .sum();
        let end = start + shown;
        let units = |to: usize| line.text[start..to].encode_utf16().count();
        let places = places.iter().filter(|place| place.end() <= end);
        Match {
            id: line.id,
            kind: line.kind.name(),
            variation: line.variation,
            stream: line.stream.clone(),
            level: line.level.clone(),
            time: line.time,
            text: line.text[start..end].to_owned(),
            cut: start > 0 || end < line.text.len(),
            places: places
                .map(|place| [units(place.start()), units(place.end())])
                .collect(),
            before: shortened(&lines[at.saturating_sub(context)..at]),
            after: shortened(&lines[at + 1..lines.len().min(at + 1 + context)]),
        }
    }
}

fn shortened(lines: &[TextLine]) -> Vec<String> {
    let short = |line: &TextLine| line.text.chars().take(SHOWN).collect();
    lines.iter().map(short).collect()
}

/// Finds what is wrong with an expression, and where; `regex` itself tells it in a drawing.
fn check(expression: &str) -> Result<(), InvalidPattern> {
    let Err(error) = regex_syntax::parse(expression) else {
        return Ok(());
    };
    let (reason, offset) = match &error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        other => (other.to_string(), 0),
    };
    let position = expression
        .get(..offset)
        .map_or(0, |before| before.chars().count())
        + 1;
    Err(InvalidPattern::Syntax { reason, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_expression_is_told_with_its_place() {
        let bad = |text: &str| {
            let pattern = Pattern::new(text, true, false, Vec::new());
            pattern.expect_err("refused").to_string()
        };
        assert_eq!(bad("é(a|b"), "unclosed group at character 2");
        assert_eq!(
            bad("a{2,1}"),
            "invalid repetition count range, the start must be <= the end at character 2"
        );
        assert!(bad(r"(\w{500}){500}").contains("too large"));
        assert!(bad(r"(?=a)b").contains("look-around"));
        assert_eq!(bad(""), "there is nothing to look for");
        assert!(bad(&"a".repeat(1_001)).contains("over the limit of 1000"));
    }

    #[test]
    fn the_part_around_the_match_is_shown() {
        let pattern = Pattern::new("needle", false, true, Vec::new()).expect("a pattern");
        let line = |text: String| TextLine {
            id: EventId::new(1, 1),
            kind: runcast_common::protocol::event::Kind::Output,
            variation: 0,
            stream: "stdout".to_owned(),
            level: None,
            time: 0,
            text,
            is_whole: true,
        };
        let long = format!("{}\u{1f600}NEEDLE{}", "é".repeat(5_000), "x".repeat(5_000));
        let lines = [line("one".to_owned()), line(long), line("two".to_owned())];
        let found = pattern.show(&lines, 1, 5);
        assert!(found.cut);
        assert_eq!(found.text.chars().count(), SHOWN);
        assert_eq!(found.places, [[SHOWN_BEFORE + 1, SHOWN_BEFORE + 7]]);
        assert_eq!(
            (found.before, found.after),
            (vec!["one".to_owned()], vec!["two".to_owned()])
        );
    }
}
