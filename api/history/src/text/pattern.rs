//! The pattern of a search, and the part of a matching line that a result holds.
//!
//! Bounds: a pattern has at most [`MAX_PATTERN_BYTES`] and compiles to at most [`MAX_REGEX_BYTES`].
//! It matches in linear time, whatever it is.

use regex::{Regex, RegexBuilder};
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use utoipa::ToSchema;

use super::lines::TextLine;

/// The longest pattern.
pub const MAX_PATTERN_BYTES: usize = 1_000;
/// Memory of a compiled pattern.
const MAX_REGEX_BYTES: usize = 1024 * 1024;
/// Characters of a line that a result holds, around the first match.
const MAX_TEXT_CHARS: usize = 1_000;
/// Characters of them before that match.
const MAX_LEAD_CHARS: usize = 200;
/// Matches within a line whose places a result holds.
const MAX_PLACES: usize = 16;

/// What to search for.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    levels: Vec<String>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// The pattern is empty.
    #[error("the pattern is empty")]
    Empty,
    /// The pattern is too long.
    #[error("{0} bytes are over the limit of {MAX_PATTERN_BYTES}")]
    TooLong(usize),
    /// The regular expression is invalid.
    #[error("{reason} at character {position}")]
    Syntax {
        /// What is wrong.
        reason: String,
        /// Where, in characters from 1.
        position: usize,
    },
    /// The regular expression would take too much memory.
    #[error("the expression is too large: over {MAX_REGEX_BYTES} bytes when compiled; repeat less")]
    TooLarge,
}

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Match {
    /// The event that the line began with.
    #[schema(value_type = String)]
    pub id: EventId,
    /// Its kind.
    pub kind: &'static str,
    /// The variation that wrote it.
    pub variation: u16,
    /// The stream that it was written to.
    pub stream: String,
    /// The severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The producer's clock, Unix milliseconds.
    pub time: u64,
    /// The line, or the part of a long line around the first match.
    pub text: String,
    /// The line is longer than `text`, before or after it.
    pub cut: bool,
    /// The matches in `text`, from and to, in UTF-16 units as JavaScript counts.
    pub places: Vec<[usize; 2]>,
    /// Lines before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Lines after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

impl Pattern {
    /// A pattern: `text` literally or as a regular expression, in lines of these levels or of any.
    pub fn new(
        text: &str,
        is_regex: bool,
        ignore_case: bool,
        levels: Vec<String>,
    ) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        let expression = match is_regex {
            true => check_syntax(text).map(|()| text.to_owned())?,
            false => regex::escape(text),
        };
        let regex = RegexBuilder::new(&expression)
            .case_insensitive(ignore_case)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(2 * MAX_REGEX_BYTES)
            .build()
            .map_err(|_too_large| InvalidPattern::TooLarge)?;
        Ok(Self { regex, levels })
    }

    /// Returns whether a line matches.
    pub fn matches(&self, line: &TextLine) -> bool {
        let level = line.level.as_deref();
        let wanted = self.levels.is_empty()
            || level.is_some_and(|level| self.levels.iter().any(|one| one == level));
        wanted && self.regex.is_match(&line.text)
    }

    /// The line at `at` as a result, with `context` lines on each side.
    pub fn to_match(&self, lines: &[TextLine], at: usize, context: usize) -> Match {
        let line = &lines[at];
        let places: Vec<_> = self.regex.find_iter(&line.text).take(MAX_PLACES).collect();
        let first = places.first().map_or(0, |place| place.start());
        let before = line.text[..first].chars().rev().take(MAX_LEAD_CHARS);
        let start = first - before.map(char::len_utf8).sum::<usize>();
        let length: usize = line.text[start..]
            .chars()
            .take(MAX_TEXT_CHARS)
            .map(char::len_utf8)
            .sum();
        let end = start + length;
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
            before: shorten(&lines[at.saturating_sub(context)..at]),
            after: shorten(&lines[at + 1..lines.len().min(at + 1 + context)]),
        }
    }
}

fn shorten(lines: &[TextLine]) -> Vec<String> {
    let short = |line: &TextLine| line.text.chars().take(MAX_TEXT_CHARS).collect();
    lines.iter().map(short).collect()
}

/// Finds what is wrong with an expression, and where. The error of `regex` itself is a multi-line
/// drawing.
fn check_syntax(expression: &str) -> Result<(), InvalidPattern> {
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
    fn a_bad_expression_is_reported_with_its_position() {
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
        assert_eq!(bad(""), "the pattern is empty");
        assert!(bad(&"a".repeat(1_001)).contains("over the limit of 1000"));
    }

    #[test]
    fn a_long_line_is_cut_around_its_match() {
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
        let found = pattern.to_match(&lines, 1, 5);
        assert!(found.cut);
        assert_eq!(found.text.chars().count(), MAX_TEXT_CHARS);
        assert_eq!(found.places, [[MAX_LEAD_CHARS + 1, MAX_LEAD_CHARS + 7]]);
        assert_eq!(
            (found.before, found.after),
            (vec!["one".to_owned()], vec!["two".to_owned()])
        );
    }
}
