//! Searches lines of a run by substring or regular expression, forward or backward from a cursor.
//!
//! A line belongs to the event that it began with: a search finds the lines that began between its
//! start and its cursor, however far they go on. It reads events page by page, with
//! [`JOIN_EVENTS`] on each side; what these do not decide about a line is looked up
//! (`search_lines`).
//!
//! Bounds: [`MAX_SEARCH_BYTES`] of event lines and [`SEARCH_DEADLINE`] per search; the result says
//! how far it came. Memory: one page of events, and [`JOIN_EVENTS`] on each side. Joining and
//! matching run on the pool of blocking threads, and look at the deadline and at
//! [`SearchWork::stop`] within each line.
//!
//! Postgres does not filter rows that cannot match: events cut lines anywhere and hold them
//! escaped, so its answer would be wrong for the sake of speed.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::lines::{TextLine, join_lines};
use super::pattern::{Match, Pattern, Stopped};
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
/// Events that are joined on each side of those whose lines are searched.
const JOIN_EVENTS: usize = 256;

/// A search.
#[derive(Debug)]
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

/// Why a search has no result.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The lines of one event alone take longer than a search may.
    #[error(
        "the expression takes longer than {SEARCH_DEADLINE:?} for the lines of one event; repeat less"
    )]
    TooExpensive,
}

/// The right to use a thread for a search, and when that ends. Cloning is cheap; the permit is
/// given back once no thread works for the search any more.
#[derive(Debug, Clone)]
pub struct SearchWork {
    stop: CancellationToken,
    deadline: Instant,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl SearchWork {
    /// Work that ends with `stop`, or after [`SEARCH_DEADLINE`] from now on.
    pub fn new(stop: CancellationToken, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stop,
            deadline: Instant::now() + SEARCH_DEADLINE,
            _permit: Arc::new(permit),
        }
    }

    /// Whether the search is to end with what it has.
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline
    }

    /// Does a part of the search on the pool of blocking threads. None if the program ends.
    async fn on_thread<T: Send + 'static>(
        &self,
        part: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let work = self.clone();
        match spawn_blocking(move || part(&work)).await {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => None,
            },
        }
    }
}

/// Joined lines, and which of them to search.
pub(super) struct Window {
    lines: Vec<TextLine>,
    searched: Range<usize>,
}

impl Window {
    /// To search those that began in this range of events.
    fn new(lines: Vec<TextLine>, range: &RangeInclusive<EventId>) -> Self {
        let from = lines.partition_point(|line| line.id < *range.start());
        let to = lines.partition_point(|line| line.id <= *range.end());
        Self {
            lines,
            searched: from..to,
        }
    }

    pub(super) fn searched(&mut self) -> &mut [TextLine] {
        &mut self.lines[self.searched.clone()]
    }
}

/// Where the search of a window has ended.
enum WindowEnd {
    /// All of it is searched.
    Complete,
    /// The result is full with the lines that began with this event.
    FullAt(EventId),
    /// The search was stopped at a line that began with this event.
    StoppedAt(EventId),
}

impl Search {
    /// Searches as far as the bounds allow.
    pub async fn run(
        self: &Arc<Self>,
        reader: &Reader,
        work: &SearchWork,
    ) -> Result<SearchResults, SearchError> {
        match self.from {
            SearchStart::After(after) => self.forward(reader, work, after).await,
            SearchStart::Before(before) => self.backward(reader, work, before).await,
        }
    }

    async fn forward(
        self: &Arc<Self>,
        reader: &Reader,
        work: &SearchWork,
        after: EventId,
    ) -> Result<SearchResults, SearchError> {
        let mut results = SearchResults::starting(after);
        // The events to join: those up to the cursor, with which a line may have begun, and those
        // from `pending` on, whose lines are not searched yet.
        let mut items: Vec<HistoryItem> = Vec::new();
        if after > EventId::ZERO {
            let page = reader
                .page_before(self.run, Some(after.next()), &self.filter, JOIN_EVENTS)
                .await?;
            items.extend(page.items);
        }
        let mut pending = items.len();
        let mut has_beginning = after == EventId::ZERO;
        let mut cursor = after;
        loop {
            let page = reader
                .page_after(self.run, cursor, &self.filter, MAX_PAGE_EVENTS)
                .await?;
            cursor = page.upto;
            results.count(page.items.iter());
            let is_last = !page.has_newer;
            items.extend(page.items);
            // The last events may belong to lines that continue: they wait for what follows.
            let searched = match is_last {
                true => items.len(),
                false => items.len().saturating_sub(JOIN_EVENTS).max(pending),
            };
            let mut open_from = None;
            if searched > pending {
                let last = items[searched - 1].event.id;
                let range = results.cursor.next()..=last;
                let joined = self.join(work, items, range, has_beginning).await;
                let Some((joined, mut window)) = joined else {
                    return Ok(results);
                };
                items = joined;
                let behind = (!is_last).then_some(cursor);
                self.complete(reader, work, &mut window, behind).await?;
                let open = window.searched().iter().find(|line| line.is_open);
                open_from = open.map(|line| line.id);
                let is_first = results.cursor == after;
                let goes_on;
                (results, goes_on) = self
                    .search(reader, work, window, results, (last, is_first))
                    .await?;
                if !goes_on {
                    return Ok(results);
                }
            }
            if is_last {
                results.done = true;
                results.cursor = results.cursor.max(cursor);
                // A line that is still being written is searched again next time.
                if let Some(open) = open_from.filter(|_| !page.ended) {
                    results.cursor = results.cursor.min(open.cursor_before());
                }
                return Ok(results);
            }
            // Stop at the bounds, but never without progress.
            if results.is_spent(work) && results.cursor > after {
                return Ok(results);
            }
            // What was searched is the lead of the next page.
            let lead = searched.saturating_sub(JOIN_EVENTS);
            has_beginning &= lead == 0;
            items.drain(..lead);
            pending = searched - lead;
        }
    }

    async fn backward(
        self: &Arc<Self>,
        reader: &Reader,
        work: &SearchWork,
        before: Option<EventId>,
    ) -> Result<SearchResults, SearchError> {
        let mut results = SearchResults::starting(before.unwrap_or(EventId::ZERO));
        // Events from the cursor on, into which a line may continue, and the cursor behind them.
        let mut trail: Vec<HistoryItem> = Vec::new();
        let mut behind_trail = None;
        if let Some(before) = before {
            let page = reader
                .page_after(self.run, before.cursor_before(), &self.filter, JOIN_EVENTS)
                .await?;
            behind_trail = page.has_newer.then_some(page.upto);
            trail.extend(page.items);
        }
        let (mut at, mut start) = (before, before);
        // Events that were read and not searched yet: they only show how lines begin.
        let mut unsearched: VecDeque<HistoryItem> = VecDeque::new();
        loop {
            let mut page = reader
                .page_before(self.run, at, &self.filter, MAX_PAGE_EVENTS)
                .await?;
            results.count(page.items.iter());
            at = Some(page.after.next());
            let start = *start.get_or_insert(page.upto.next());
            results.cursor = match results.cursor {
                EventId::ZERO => start,
                cursor => cursor,
            };
            page.items.append(&mut unsearched);
            let mut items: Vec<HistoryItem> = page.items.into();
            let is_last = !page.has_older;
            let lead = match is_last {
                true => 0,
                false => items.len().min(JOIN_EVENTS),
            };
            let read = items.len();
            if lead < read {
                // Search the lines that begin in the window, the last one first.
                let first = items[lead].event.id;
                let range = first..=items[read - 1].event.id;
                items.append(&mut trail);
                let joined = self.join(work, items, range, is_last).await;
                let Some((joined, mut window)) = joined else {
                    return Ok(results);
                };
                items = joined;
                self.complete(reader, work, &mut window, behind_trail)
                    .await?;
                let is_first = results.cursor == start;
                let goes_on;
                (results, goes_on) = self
                    .search(reader, work, window, results, (first, is_first))
                    .await?;
                if !goes_on {
                    return Ok(results);
                }
            }
            if is_last {
                results.done = true;
                return Ok(results);
            }
            // Stop at the bounds, but never without progress.
            if results.is_spent(work) && results.cursor < start {
                return Ok(results);
            }
            // What was searched is the trail of the next page.
            unsearched.extend(items.drain(..lead));
            if lead < read {
                items.truncate(JOIN_EVENTS);
                behind_trail = items.last().map(|item| item.event.id);
                trail = items;
            }
        }
    }

    /// Joins events to lines, of which those are searched that began in this range. Gives the
    /// events back. None if the program ends.
    async fn join(
        &self,
        work: &SearchWork,
        items: Vec<HistoryItem>,
        range: RangeInclusive<EventId>,
        has_beginning: bool,
    ) -> Option<(Vec<HistoryItem>, Window)> {
        let part = move |_: &SearchWork| {
            let window = Window::new(join_lines(&items, has_beginning), &range);
            (items, window)
        };
        work.on_thread(part).await
    }

    /// Adds the matches of a window, in the direction of the search, and moves the cursor: to
    /// `upto` if all of it is searched. Returns whether the search goes on. The first window may
    /// take the whole time of a search, however long it took to read.
    async fn search(
        self: &Arc<Self>,
        reader: &Reader,
        work: &SearchWork,
        window: Window,
        mut results: SearchResults,
        (upto, is_first): (EventId, bool),
    ) -> Result<(SearchResults, bool), SearchError> {
        let search = Arc::clone(self);
        let start = results.cursor;
        let searched = work.on_thread(move |work| {
            let deadline = match is_first {
                true => Instant::now() + SEARCH_DEADLINE,
                false => work.deadline,
            };
            let stop = || work.stop.is_cancelled() || Instant::now() >= deadline;
            let Window { lines, searched } = window;
            let end = match search.from {
                SearchStart::After(_) => search.match_lines(&lines, searched, &mut results, stop),
                SearchStart::Before(_) => {
                    search.match_lines(&lines, searched.rev(), &mut results, stop)
                }
            };
            (results, end)
        });
        let Some((mut results, end)) = searched.await else {
            return Ok((SearchResults::starting(start), false));
        };
        self.drop_continued(reader, &mut results).await?;
        results.cursor = match (&end, self.from) {
            (WindowEnd::Complete, _) => upto,
            (WindowEnd::FullAt(id), _) => *id,
            (WindowEnd::StoppedAt(id), SearchStart::After(_)) => start.max(id.cursor_before()),
            (WindowEnd::StoppedAt(id), SearchStart::Before(_)) => start.min(id.next()),
        };
        // A search that cannot get past one event in its time would be repeated for ever.
        let is_stuck = is_first && results.cursor == start && !work.stop.is_cancelled();
        match end {
            WindowEnd::StoppedAt(_) if is_stuck => Err(SearchError::TooExpensive),
            end => Ok((results, matches!(end, WindowEnd::Complete))),
        }
    }

    fn match_lines(
        &self,
        lines: &[TextLine],
        order: impl Iterator<Item = usize>,
        results: &mut SearchResults,
        stop: impl Fn() -> bool,
    ) -> WindowEnd {
        for at in order {
            let line = &lines[at];
            if let Some(last) = results.matches.last()
                && results.matches.len() >= self.limit
                && last.id != line.id
            {
                return WindowEnd::FullAt(last.id);
            }
            match self.pattern.find(line, &stop) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let found = found.to_match(lines, at, self.context);
                    results.matches.push(found);
                }
                // The lines of one event stay together, so that the cursor can lie between events.
                Err(Stopped) => {
                    results.matches.retain(|found| found.id != line.id);
                    return WindowEnd::StoppedAt(line.id);
                }
            }
        }
        WindowEnd::Complete
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

    fn is_spent(&self, work: &SearchWork) -> bool {
        self.bytes >= MAX_SEARCH_BYTES || work.is_over()
    }
}
