//! Finds lines of a run by substring or regular expression, forward or backward from a cursor.
//!
//! Work is bounded: [`MOST_BYTES`] of event lines and [`MOST_TIME`] a search; its answer says how far it
//! came. Expressions are compiled to at most [`REGEX_BYTES`] and matched in linear time. Memory: one page
//! of events, and what is joined with it on both sides.
//!
//! Postgres is not asked to leave out what cannot match: lines are cut into events anywhere, and
//! stand there escaped, so its answer would be wrong for the sake of speed.

use std::collections::VecDeque;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use runcast_common::id::EventId;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::lines::{JOIN_EVENTS, Line, join};
use crate::fanout::frame::Filter;
use crate::fanout::history::{Item, MOST_EVENTS};
use crate::fanout::reader::{ReadError, Reader};

/// Longest pattern in bytes.
pub const MOST_PATTERN_BYTES: usize = 1_000;
/// Most matches of one answer; a few more where several lines of one event match.
pub const MOST_MATCHES: usize = 500;
/// Most lines of context on each side of a match.
pub const MOST_CONTEXT: usize = 10;
/// Most work of one search.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Longest time of one search.
pub const MOST_TIME: Duration = Duration::from_secs(2);

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
pub enum BadPattern {
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

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// The run.
    pub run: Uuid,
    /// The channels.
    pub filter: Filter,
    /// What is looked for.
    pub pattern: Pattern,
    /// Where to begin, and in which direction.
    pub from: Start,
    /// Most matches.
    pub limit: usize,
    /// Lines of context on each side.
    pub context: usize,
}

/// Where a search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind this event, forward.
    After(EventId),
    /// Before this event, or with the last of all, backward.
    Before(Option<EventId>),
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// The event that the line began with.
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

/// What a search came to.
#[derive(Debug, Serialize)]
pub struct Results {
    /// In the direction of the search.
    pub matches: Vec<Match>,
    /// How far it came: for `after` or `before`, by its direction.
    pub cursor: EventId,
    /// Nothing is left in that direction at the moment.
    pub done: bool,
    /// Events that were looked at.
    pub events: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Pattern {
    /// A pattern: `text` as it stands or as an expression, in lines of these levels or of any.
    ///
    /// # Errors
    /// [`BadPattern`] says what is wrong, and where.
    pub fn new(
        text: &str,
        is_regex: bool,
        ignore_case: bool,
        levels: Vec<String>,
    ) -> Result<Self, BadPattern> {
        if text.is_empty() {
            return Err(BadPattern::Empty);
        }
        if text.len() > MOST_PATTERN_BYTES {
            return Err(BadPattern::TooLong(text.len()));
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
            .map_err(|_too_large| BadPattern::TooLarge)?;
        Ok(Self { regex, levels })
    }

    fn fits(&self, line: &Line) -> bool {
        let level = line.level.as_deref();
        let wanted = self.levels.is_empty()
            || level.is_some_and(|level| self.levels.iter().any(|one| one == level));
        wanted && self.regex.is_match(&line.text)
    }

    fn show(&self, lines: &[Line], at: usize, context: usize) -> Match {
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

fn shortened(lines: &[Line]) -> Vec<String> {
    let short = |line: &Line| line.text.chars().take(SHOWN).collect();
    lines.iter().map(short).collect()
}

/// Finds what is wrong with an expression, and where; `regex` itself tells it in a drawing.
fn check(expression: &str) -> Result<(), BadPattern> {
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
    Err(BadPattern::Syntax { reason, position })
}

impl Search {
    /// Searches as far as the bounds let it.
    ///
    /// # Errors
    /// [`ReadError`] if the run cannot be read.
    pub async fn run(&self, reader: &Reader) -> Result<Results, ReadError> {
        let give_up = Instant::now() + MOST_TIME;
        match self.from {
            Start::After(after) => self.forward(reader, after, give_up).await,
            Start::Before(before) => self.backward(reader, before, give_up).await,
        }
    }

    async fn forward(
        &self,
        reader: &Reader,
        after: EventId,
        give_up: Instant,
    ) -> Result<Results, ReadError> {
        let mut results = Results::starting(after);
        let mut lead = Vec::new();
        if after > EventId::ZERO {
            let page = reader
                .page_before(self.run, Some(after.next()), &self.filter, JOIN_EVENTS)
                .await?;
            lead.extend(page.items);
        }
        let mut pending = Vec::new();
        let mut cursor = after;
        loop {
            let page = reader
                .page_after(self.run, cursor, &self.filter, MOST_EVENTS)
                .await?;
            cursor = page.upto;
            results.count(page.items.iter());
            let is_last = !page.has_newer;
            pending.extend(page.items);
            // The last ones may belong to lines that go on: they wait for what follows.
            let window = match is_last {
                true => pending.len(),
                false => pending.len().saturating_sub(JOIN_EVENTS),
            };
            let lines = join(lead.iter().chain(&pending));
            let last = pending[..window].last().map(|item| item.event.id);
            if let Some(last) = last {
                let inside = |line: &Line| line.id > results.cursor && line.id <= last;
                let first = lines.partition_point(|line| line.id <= results.cursor);
                for at in first..lines.len() {
                    let line = &lines[at];
                    if results.is_full(self.limit, line.id) {
                        return Ok(results.ending_at_last());
                    }
                    if inside(line) && self.pattern.fits(line) {
                        let found = self.pattern.show(&lines, at, self.context);
                        results.matches.push(found);
                    }
                }
                results.cursor = last;
            }
            if is_last {
                results.done = true;
                results.cursor = results.cursor.max(cursor);
                // What is still being written is looked at again.
                let open = lines.iter().find(|line| !line.is_whole && line.id > after);
                if let Some(open) = open.filter(|_| !page.ended) {
                    results.cursor = results.cursor.min(open.id.cursor_before());
                }
                return Ok(results);
            }
            if results.is_spent(give_up) && results.cursor > after {
                return Ok(results);
            }
            lead.extend(pending.drain(..window));
            lead.drain(..lead.len().saturating_sub(JOIN_EVENTS));
            tokio::task::yield_now().await;
        }
    }

    async fn backward(
        &self,
        reader: &Reader,
        before: Option<EventId>,
        give_up: Instant,
    ) -> Result<Results, ReadError> {
        let mut results = Results::starting(EventId::ZERO);
        let mut trail: Vec<Item> = Vec::new();
        if let Some(before) = before {
            let page = reader
                .page_after(self.run, before.cursor_before(), &self.filter, JOIN_EVENTS)
                .await?;
            trail.extend(page.items);
        }
        let mut at = before;
        // Read, and not looked at yet but for how lines begin.
        let mut carry: VecDeque<Item> = VecDeque::new();
        loop {
            let mut page = reader
                .page_before(self.run, at, &self.filter, MOST_EVENTS)
                .await?;
            results.count(page.items.iter());
            at = Some(page.after.next());
            page.items.append(&mut carry);
            let mut window: Vec<Item> = page.items.into();
            let is_last = !page.has_older;
            let lead = match is_last {
                true => 0,
                false => window.len().min(JOIN_EVENTS),
            };
            let lines = join(window.iter().chain(&trail));
            let first = window.get(lead).map(|item| item.event.id);
            if let Some(first) = first {
                let last = window.last().map_or(first, |item| item.event.id);
                for at in (0..lines.len()).rev() {
                    let line = &lines[at];
                    if line.id > last || line.id < first {
                        continue;
                    }
                    if results.is_full(self.limit, line.id) {
                        return Ok(results.ending_at_last());
                    }
                    if self.pattern.fits(line) {
                        let found = self.pattern.show(&lines, at, self.context);
                        results.matches.push(found);
                    }
                }
                results.cursor = first;
            } else if results.cursor == EventId::ZERO {
                results.cursor = before.unwrap_or(page.upto.next());
            }
            if is_last {
                results.done = true;
                return Ok(results);
            }
            if results.is_spent(give_up) && first.is_some() {
                return Ok(results);
            }
            carry.extend(window.drain(..lead));
            if !window.is_empty() {
                window.truncate(JOIN_EVENTS);
                trail = window;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Results {
    const fn starting(cursor: EventId) -> Self {
        Self {
            matches: Vec::new(),
            cursor,
            done: false,
            events: 0,
            bytes: 0,
        }
    }

    fn count<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        for item in items {
            self.events += 1;
            self.bytes += item.event.line.len() as u64;
        }
    }

    /// True if no match of another event fits: the lines of one are told together, so that the cursor
    /// can stand between events.
    fn is_full(&self, limit: usize, next: EventId) -> bool {
        self.matches.len() >= limit && self.matches.last().is_none_or(|last| last.id != next)
    }

    fn ending_at_last(mut self) -> Self {
        if let Some(last) = self.matches.last() {
            self.cursor = last.id;
        }
        self
    }

    fn is_spent(&self, give_up: Instant) -> bool {
        self.bytes >= MOST_BYTES || Instant::now() >= give_up
    }
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
        let line = |text: String| Line {
            id: EventId::new(1, 1),
            kind: runcast_common::event::Kind::Output,
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
