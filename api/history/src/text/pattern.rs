//! The pattern of a search, and the part of a matching line that a result holds.
//!
//! Bounds: a pattern has at most [`MAX_PATTERN_BYTES`] and compiles to at most [`MAX_REGEX_BYTES`];
//! an expression written out in full, with its repetitions, has at most [`MAX_POSITIONS`]
//! characters. It matches in linear time, whatever it is, but each byte of a line may cost a step
//! for each of its positions, of 10 to 20 ns. So a line is searched in pieces of [`PIECE_WORK`]
//! steps, or of [`MIN_PIECE_BYTES`], and the search may be stopped between them: after 60 ms at
//! worst.
//!
//! Pieces overlap by half. So every match is found that is shorter than half a piece: with a usual
//! expression a piece is the whole line, with the most expensive one it has 5 KiB.

use std::ops::Range;

use regex_automata::Input;
use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use utoipa::ToSchema;

use super::lines::{TextLine, composed};

/// The longest pattern.
pub const MAX_PATTERN_BYTES: usize = 1_000;
/// Characters that an expression may have when its repetitions are written out.
const MAX_POSITIONS: usize = 600;
/// Steps between two looks at whether the search is to stop.
const PIECE_WORK: usize = 2 * 1024 * 1024;
/// The shortest piece of a line. Half of it has room for [`MAX_POSITIONS`] characters.
const MIN_PIECE_BYTES: usize = 5 * 1024;
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
    piece_bytes: usize,
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
    /// The regular expression would take too much time.
    #[error(
        "the expression is too large: written out it has {0} characters, over the limit of {MAX_POSITIONS}; repeat less"
    )]
    TooManyPositions(usize),
}

/// The search is to stop, in the middle of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Match {
    /// The event that the line began with: the event of its row on the page. A line of several
    /// events has the first one.
    #[schema(value_type = String)]
    pub id: EventId,
    /// Its kind.
    #[schema(value_type = String)]
    pub kind: Kind,
    /// The variation that wrote it.
    pub variation: u16,
    /// The stream that it was written to.
    pub stream: String,
    /// The severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The producer's clock, Unix milliseconds.
    pub time: u64,
    /// The line as it is shown, or as it was written if only that matches; of a long line the part
    /// around the first match. Composed characters (NFC).
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
    /// It may be the rest of a line that began before the events that were read.
    #[serde(skip)]
    pub(super) may_continue: bool,
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
        let text = composed(text.into());
        let expression = match is_regex {
            true => text,
            false => regex_syntax::escape(&text).into(),
        };
        let positions = positions(&parse(&expression)?);
        if is_regex && positions > MAX_POSITIONS {
            return Err(InvalidPattern::TooManyPositions(positions));
        }
        let config = meta::Config::new()
            .nfa_size_limit(Some(MAX_REGEX_BYTES))
            .hybrid_cache_capacity(2 * MAX_REGEX_BYTES);
        let regex = Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().case_insensitive(ignore_case))
            .build(&expression)
            .map_err(|_too_large| InvalidPattern::TooLarge)?;
        Ok(Self {
            regex,
            piece_bytes: (PIECE_WORK / positions.max(1)).max(MIN_PIECE_BYTES),
            levels,
        })
    }

    /// The version of a line that matches, with the places of its first matches. `stop` is asked
    /// between two pieces of the line.
    pub fn find<'a>(
        &self,
        line: &'a TextLine,
        stop: impl Fn() -> bool,
    ) -> Result<Option<MatchingLine<'a>>, Stopped> {
        let level = line.level.as_deref();
        let wanted = self.levels.is_empty()
            || level.is_some_and(|level| self.levels.iter().any(|one| one == level));
        if !wanted {
            return Ok(None);
        }
        for text in line.versions() {
            let places = self.places(&text, &stop)?;
            if !places.is_empty() {
                let text = text.into_owned();
                return Ok(Some(MatchingLine { line, text, places }));
            }
        }
        Ok(None)
    }

    /// Where the first matches of a text lie.
    fn places(&self, text: &str, stop: &impl Fn() -> bool) -> Result<Vec<Range<usize>>, Stopped> {
        let mut places: Vec<Range<usize>> = Vec::new();
        // Where the next match may begin, and the piece that is searched for it.
        let (mut from, mut piece) = (0, 0);
        while from <= text.len() && places.len() < MAX_PLACES {
            if stop() {
                return Err(Stopped);
            }
            piece = piece.max(from.saturating_sub(self.piece_bytes));
            let end = ceil_char(text, piece + self.piece_bytes);
            let input = Input::new(text).range(from..end);
            if let Some(found) = self.regex.find(input) {
                // An empty match does not move on by itself.
                from = match found.is_empty() {
                    true => ceil_char(text, found.end() + 1).max(found.end() + 1),
                    false => found.end(),
                };
                places.push(found.range());
            } else if end == text.len() {
                break;
            } else {
                piece = ceil_char(text, piece + self.piece_bytes / 2);
                from = from.max(piece);
            }
        }
        Ok(places)
    }
}

/// A line that matches, not cut yet.
#[derive(Debug)]
pub struct MatchingLine<'a> {
    line: &'a TextLine,
    text: String,
    places: Vec<Range<usize>>,
}

impl MatchingLine<'_> {
    /// The line as a result, with `context` of these lines on each side; it is the one at `at`.
    pub fn to_match(&self, lines: &[TextLine], at: usize, context: usize) -> Match {
        let (line, text) = (self.line, &self.text);
        let first = self.places.first().map_or(0, |place| place.start);
        let before = text[..first].chars().rev().take(MAX_LEAD_CHARS);
        let start = first - before.map(char::len_utf8).sum::<usize>();
        let shown = text[start..].chars().take(MAX_TEXT_CHARS);
        let end = start + shown.map(char::len_utf8).sum::<usize>();
        let units = |to: usize| text[start..to].encode_utf16().count();
        let places = self.places.iter().filter(|place| place.end <= end);
        Match {
            id: line.id,
            kind: line.kind,
            variation: line.variation,
            stream: line.stream.clone(),
            level: line.level.clone(),
            time: line.time,
            text: text[start..end].to_owned(),
            cut: start > 0 || end < text.len(),
            places: places
                .map(|place| [units(place.start), units(place.end)])
                .collect(),
            before: shorten(&lines[at.saturating_sub(context)..at]),
            after: shorten(&lines[at + 1..lines.len().min(at + 1 + context)]),
            may_continue: line.may_continue,
        }
    }
}

fn shorten(lines: &[TextLine]) -> Vec<String> {
    let short = |line: &TextLine| line.text().chars().take(MAX_TEXT_CHARS).collect();
    lines.iter().map(short).collect()
}

/// The first boundary of a character at or after this byte.
fn ceil_char(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (at..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}

/// The characters that an expression has when its repetitions are written out: how many places in
/// it may be tried at the same time.
fn positions(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            let times = usize::try_from(times).unwrap_or(usize::MAX);
            positions(&repetition.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => positions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(positions).fold(0, usize::saturating_add)
        }
    }
}

/// Parses an expression, or finds what is wrong with it, and where. The error of the engine itself
/// is a multi-line drawing.
fn parse(expression: &str) -> Result<Hir, InvalidPattern> {
    let error = match regex_syntax::parse(expression) {
        Ok(hir) => return Ok(hir),
        Err(error) => error,
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
    use super::super::lines::join_lines;
    use super::super::lines_tests::item;
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text, true, false, Vec::new()).expect("a pattern")
    }

    fn places(expression: &str, text: &str) -> Vec<Range<usize>> {
        let pattern = pattern(expression);
        pattern.places(text, &|| false).expect("not stopped")
    }

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
        assert!(bad(r"(?=a)b").contains("look-around"));
        assert_eq!(bad(""), "the pattern is empty");
        assert!(bad(&"a".repeat(1_001)).contains("over the limit of 1000"));
        for expensive in [
            r"(\w{500}){500}",
            "a[ab]{2000}[c-z]",
            "(a|b)*a(a|b){5000}c",
            "((a{10}){10}){10}",
            "(a?){700}",
            "(|a){700}",
            r"\pL{300}",
        ] {
            assert!(bad(expensive).contains("too large"), "{expensive}");
        }
        for usual in [
            r"error.{0,500}timeout",
            r"[0-9a-f]{64}",
            r"\b\w+@\w+\.(com|org)\b",
        ] {
            pattern(usual);
        }
    }

    #[test]
    fn a_long_line_is_cut_around_its_match() {
        let pattern = Pattern::new("needle", false, true, Vec::new()).expect("a pattern");
        let long = format!(
            "{}\u{1f600}NEEDLE{}\n",
            "é".repeat(5_000),
            "x".repeat(5_000)
        );
        let items = [
            item(1, "stdout", b"one\n"),
            item(2, "stdout", long.as_bytes()),
            item(3, "stdout", b"two\n"),
        ];
        let lines = join_lines(&items, true);
        let found = pattern.find(&lines[1], || false).expect("not stopped");
        let found = found.expect("a match").to_match(&lines, 1, 5);
        assert!(found.cut);
        assert_eq!(found.text.chars().count(), MAX_TEXT_CHARS);
        assert_eq!(found.places, [[MAX_LEAD_CHARS + 1, MAX_LEAD_CHARS + 7]]);
        assert_eq!(
            (found.before, found.after),
            (vec!["one".to_owned()], vec!["two".to_owned()])
        );
    }

    #[test]
    fn places_are_those_of_the_whole_line_however_it_is_cut() {
        let mut text = "é".repeat(30_000);
        for at in [0, 8_190, 8_192, 16_384, 40_000] {
            text.replace_range(at..at + 2, "ab");
        }
        text.push_str("ab");
        let all: Vec<usize> = text.match_indices("ab").map(|(at, _)| at).collect();
        assert_eq!(all.len(), 6);
        for expression in ["ab".to_owned(), "ab|c{590}".to_owned()] {
            let found: Vec<usize> = places(&expression, &text)
                .iter()
                .map(|place| place.start)
                .collect();
            assert_eq!(found, all, "{expression:.10}");
        }
        // Anchors and words mean the line, and not its pieces.
        assert_eq!(places("^(ab|c{590})", &text), std::slice::from_ref(&(0..2)));
        assert_eq!(
            places("(ab|c{590})$", &text),
            std::slice::from_ref(&(60_000..60_002))
        );
        assert!(places(r"\b(éa|c{590})", &text).is_empty());
        assert_eq!(places("x*|c{590}", "éx"), [0..0, 2..3, 3..3]);
    }

    #[test]
    fn a_search_stops_within_a_line() {
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let text = "ab".repeat(30_000);
        assert_eq!(pattern("a[ab]{590}c").places(&text, &stop), Err(Stopped));
        assert_eq!(asked.get(), 4);
    }
}
