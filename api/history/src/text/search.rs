//! Searches lines of a run by substring or regular expression, forward or backward from a cursor.
//!
//! Bounds: [`MAX_SEARCH_BYTES`] of event lines and [`SEARCH_DEADLINE`] per search; the result says
//! how far it came. Memory: one page of events, and [`JOIN_EVENTS`] on each side, with which its
//! lines are joined.
//!
//! Postgres does not filter rows that cannot match: events cut lines anywhere and hold them
//! escaped, so its answer would be wrong for the sake of speed.

use std::collections::VecDeque;
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::lines::{JOIN_EVENTS, TextLine, join_lines};
use super::pattern::{Match, Pattern};
use crate::filter::Filter;
use crate::pages::{HistoryItem, MAX_PAGE_EVENTS};
use crate::reader::{ReadError, Reader};

/// Matches of one result; a few more where several lines of one event match.
pub const MAX_MATCHES: usize = 500;
/// Lines of context on each side of a match.
pub const MAX_CONTEXT_LINES: usize = 10;
/// Event lines that one search reads.
pub const MAX_SEARCH_BYTES: u64 = 64 * 1024 * 1024;
/// The longest time of one search.
pub const SEARCH_DEADLINE: Duration = Duration::from_secs(2);

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// The run.
    pub run: Uuid,
    /// The channels.
    pub filter: Filter,
    /// What to search for.
    pub pattern: Pattern,
    /// Where to begin, and in which direction.
    pub from: SearchStart,
    /// Matches at most.
    pub limit: usize,
    /// Lines of context on each side.
    pub context: usize,
}

/// Where a search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStart {
    /// Behind this event, forward.
    After(EventId),
    /// Before this event, or with the last of all, backward.
    Before(Option<EventId>),
}

/// The result of a search.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Matches)]
pub struct SearchResults {
    /// In the direction of the search.
    pub matches: Vec<Match>,
    /// How far it came: the next `after` or `before`, by its direction.
    #[schema(value_type = String)]
    pub cursor: EventId,
    /// Nothing is left in that direction at the moment.
    pub done: bool,
    /// Events that were searched.
    pub events: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Search {
    /// Searches as far as the bounds allow.
    pub async fn run(&self, reader: &Reader) -> Result<SearchResults, ReadError> {
        let deadline = Instant::now() + SEARCH_DEADLINE;
        match self.from {
            SearchStart::After(after) => self.forward(reader, after, deadline).await,
            SearchStart::Before(before) => self.backward(reader, before, deadline).await,
        }
    }

    async fn forward(
        &self,
        reader: &Reader,
        after: EventId,
        deadline: Instant,
    ) -> Result<SearchResults, ReadError> {
        let mut results = SearchResults::starting(after);
        // Events up to the cursor, with which a line may have begun.
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
                .page_after(self.run, cursor, &self.filter, MAX_PAGE_EVENTS)
                .await?;
            cursor = page.upto;
            results.count(page.items.iter());
            let is_last = !page.has_newer;
            pending.extend(page.items);
            // The last events may belong to lines that continue: they wait for what follows.
            let window = match is_last {
                true => pending.len(),
                false => pending.len().saturating_sub(JOIN_EVENTS),
            };
            // Match the lines that begin in the window.
            let lines = join_lines(lead.iter().chain(&pending));
            let last = pending[..window].last().map(|item| item.event.id);
            if let Some(last) = last {
                let inside = |line: &TextLine| line.id > results.cursor && line.id <= last;
                let first = lines.partition_point(|line| line.id <= results.cursor);
                for at in first..lines.len() {
                    let line = &lines[at];
                    if results.is_full(self.limit, line.id) {
                        return Ok(results.ending_at_last());
                    }
                    if inside(line) && self.pattern.matches(line) {
                        let found = self.pattern.to_match(&lines, at, self.context);
                        results.matches.push(found);
                    }
                }
                results.cursor = last;
            }
            if is_last {
                results.done = true;
                results.cursor = results.cursor.max(cursor);
                // A line that is still being written is searched again next time.
                let open = lines.iter().find(|line| !line.is_whole && line.id > after);
                if let Some(open) = open.filter(|_| !page.ended) {
                    results.cursor = results.cursor.min(open.id.cursor_before());
                }
                return Ok(results);
            }
            // Stop at the bounds, but never without progress.
            if results.is_spent(deadline) && results.cursor > after {
                return Ok(results);
            }
            // What was searched is the lead of the next page.
            lead.extend(pending.drain(..window));
            lead.drain(..lead.len().saturating_sub(JOIN_EVENTS));
            tokio::task::yield_now().await;
        }
    }

    async fn backward(
        &self,
        reader: &Reader,
        before: Option<EventId>,
        deadline: Instant,
    ) -> Result<SearchResults, ReadError> {
        let mut results = SearchResults::starting(EventId::ZERO);
        // Events from the cursor on, into which a line may continue.
        let mut trail: Vec<HistoryItem> = Vec::new();
        if let Some(before) = before {
            let page = reader
                .page_after(self.run, before.cursor_before(), &self.filter, JOIN_EVENTS)
                .await?;
            trail.extend(page.items);
        }
        let mut at = before;
        // Events that were read and not searched yet: they only show how lines begin.
        let mut unsearched: VecDeque<HistoryItem> = VecDeque::new();
        loop {
            let mut page = reader
                .page_before(self.run, at, &self.filter, MAX_PAGE_EVENTS)
                .await?;
            results.count(page.items.iter());
            at = Some(page.after.next());
            page.items.append(&mut unsearched);
            let mut window: Vec<HistoryItem> = page.items.into();
            let is_last = !page.has_older;
            let lead = match is_last {
                true => 0,
                false => window.len().min(JOIN_EVENTS),
            };
            // Match the lines that begin in the window, the last one first.
            let lines = join_lines(window.iter().chain(&trail));
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
                    if self.pattern.matches(line) {
                        let found = self.pattern.to_match(&lines, at, self.context);
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
            // Stop at the bounds, but never without progress.
            if results.is_spent(deadline) && first.is_some() {
                return Ok(results);
            }
            // What was searched is the trail of the next page.
            unsearched.extend(window.drain(..lead));
            if !window.is_empty() {
                window.truncate(JOIN_EVENTS);
                trail = window;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl SearchResults {
    const fn starting(cursor: EventId) -> Self {
        Self {
            matches: Vec::new(),
            cursor,
            done: false,
            events: 0,
            bytes: 0,
        }
    }

    fn count<'a>(&mut self, items: impl Iterator<Item = &'a HistoryItem>) {
        for item in items {
            self.events += 1;
            self.bytes += item.event.line.len() as u64;
        }
    }

    /// Returns whether the result is full before `next`. The matches of one event stay together, so
    /// that the cursor can lie between events.
    fn is_full(&self, limit: usize, next: EventId) -> bool {
        self.matches.len() >= limit && self.matches.last().is_none_or(|last| last.id != next)
    }

    fn ending_at_last(mut self) -> Self {
        if let Some(last) = self.matches.last() {
            self.cursor = last.id;
        }
        self
    }

    fn is_spent(&self, deadline: Instant) -> bool {
        self.bytes >= MAX_SEARCH_BYTES || Instant::now() >= deadline
    }
}
