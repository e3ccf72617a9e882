//! History of a run as a reader sees it, from wherever it is held: pages by cursor in both
//! directions, the cursor of a line number, and the cursor of a point in time.
//!
//! Everything is read forward, by the rules of [`crate::reader`], so a page holds exactly what the
//! stream would have sent, gaps included. For a page backward the beginning is found first.
//!
//! Data: at most [`MAX_PAGE_EVENTS`] events and [`PAGE_BYTES`] bytes, and one read beside them.
//! Time: a page that took [`PAGE_DEADLINE`] ends early; its cursor says where.

use std::collections::VecDeque;
use std::time::Duration;

use runcast_common::protocol::entry::{Entry, Event};
use runcast_common::protocol::event::{Head, Kind};
use runcast_common::protocol::event_id::EventId;
use tokio::time::Instant;
use uuid::Uuid;

use super::reader::{ReadError, ReadLimit, Reader, Sink};
use crate::filter::Filter;
use crate::gap_notice::GapNotice;
use runcast_store::events::{Moment, PAGE_BYTES, PAGE_EVENTS};

/// Events of one page at most.
pub const MAX_PAGE_EVENTS: usize = PAGE_EVENTS as usize;

/// Longest work for one page: a filter that accepts little passes over much.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);

/// An event that the filter accepts, or a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The event. A gap that the reader itself found has no producer.
    pub event: Event,
    /// The kind of the event.
    pub kind: Kind,
    /// The variation that published it.
    pub variation: u16,
}

/// Events after a cursor.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub items: Vec<HistoryItem>,
    /// The cursor that is reached.
    pub upto: EventId,
    /// It has every event of the run that is known.
    pub caught_up: bool,
    /// The run has ended, and nothing follows.
    pub ended: bool,
}

/// A page: the events after `after` up to `upto` that the filter accepts.
#[derive(Debug, Default)]
pub struct Page {
    /// In order.
    pub items: VecDeque<HistoryItem>,
    /// Where it begins, exclusive.
    pub after: EventId,
    /// The cursor that is reached. The stream continues there without a hole.
    pub upto: EventId,
    /// There may be events at or before `after`.
    pub has_older: bool,
    /// There are events after `upto`.
    pub has_newer: bool,
    /// The run has ended, and nothing follows.
    pub ended: bool,
    bytes: usize,
}

/// A sink that keeps the events that a filter accepts, and stands still once it has enough: one
/// read from Redis may bring many times the events of a page.
struct Collector<'a> {
    filter: &'a Filter,
    enough: Enough,
    items: Vec<HistoryItem>,
    upto: EventId,
}

/// What a collector takes at most.
#[derive(Clone, Copy)]
struct Enough {
    /// Events.
    items: usize,
    /// It takes no event from this one on.
    before: EventId,
}

impl Enough {
    /// All that one read brings.
    const ALL: Self = Self {
        items: usize::MAX,
        before: EventId::new(u64::MAX, u64::MAX),
    };
}

impl Collector<'_> {
    fn has_enough(&self, next: EventId) -> bool {
        self.items.len() >= self.enough.items || next >= self.enough.before
    }
}

impl Sink for Collector<'_> {
    fn upto(&self) -> EventId {
        self.upto
    }

    fn event(&mut self, event: &Event) {
        if self.has_enough(event.id) {
            return;
        }
        let Ok(head) = Head::parse(&event.line) else {
            return self.gap(event.id, event.id.next(), Some(1), "unreadable");
        };
        self.upto = event.id;
        if self.filter.accepts_channel(head.kind, head.variation) {
            self.items.push(HistoryItem {
                kind: head.kind,
                variation: head.variation,
                event: event.clone(),
            });
        }
    }

    fn gap(&mut self, at: EventId, next: EventId, count: Option<u64>, reason: &'static str) {
        if self.has_enough(at) {
            return;
        }
        let notice = GapNotice {
            kind: Kind::Gap,
            after: self.upto,
            next,
            count,
            reason,
        };
        self.items.push(HistoryItem {
            kind: Kind::Gap,
            variation: 0,
            event: Event {
                id: at,
                producer: Uuid::nil(),
                producer_seq: 0,
                line: notice.line().into(),
            },
        });
        self.upto = at;
    }

    fn skip_to(&mut self, id: EventId) {
        self.upto = self.upto.max(id);
    }
}

impl Page {
    fn starting(after: EventId) -> Self {
        Self {
            after,
            upto: after,
            ..Self::default()
        }
    }

    fn push(&mut self, item: HistoryItem) {
        self.bytes += item.event.line.len();
        self.items.push_back(item);
    }

    /// Drops the oldest events beyond the bounds of a page that holds the newest ones.
    fn keep_newest(&mut self, limit: usize) {
        while self.items.len() > limit || (self.bytes > PAGE_BYTES && self.items.len() > 1) {
            if let Some(item) = self.items.pop_front() {
                self.bytes -= item.event.line.len();
                self.after = item.event.id;
                self.has_older = true;
            }
        }
    }

    /// Puts an older page in front, which ends where this one begins.
    fn prepend(&mut self, mut older: Self) {
        self.bytes += older.bytes;
        older.items.append(&mut self.items);
        self.items = older.items;
        self.after = older.after;
        self.has_older = older.has_older;
    }
}

impl Reader {
    /// The events after a cursor that the filter accepts, as many as one read finds.
    pub async fn batch(
        &self,
        run: Uuid,
        cursor: EventId,
        filter: &Filter,
    ) -> Result<Batch, ReadError> {
        self.batch_of(run, cursor, filter, Enough::ALL).await
    }

    async fn batch_of(
        &self,
        run: Uuid,
        cursor: EventId,
        filter: &Filter,
        enough: Enough,
    ) -> Result<Batch, ReadError> {
        let mut collector = Collector {
            filter,
            enough,
            items: Vec::new(),
            upto: cursor,
        };
        let status = self
            .read(run, filter, ReadLimit::FULL_PAGE, &mut collector)
            .await?;
        Ok(Batch {
            items: collector.items,
            upto: collector.upto,
            caught_up: status.caught_up,
            ended: status.ended,
        })
    }

    /// The page that begins after `after`.
    pub async fn page_after(
        &self,
        run: Uuid,
        after: EventId,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let deadline = Instant::now() + PAGE_DEADLINE;
        let mut page = Page::starting(after);
        page.has_older = after > EventId::ZERO;
        loop {
            let enough = Enough {
                items: limit - page.items.len(),
                ..Enough::ALL
            };
            let batch = self.batch_of(run, page.upto, filter, enough).await?;
            for item in batch.items {
                let fits = page.items.is_empty()
                    || (page.items.len() < limit
                        && page.bytes + item.event.line.len() <= PAGE_BYTES);
                if !fits {
                    page.has_newer = true;
                    return Ok(page);
                }
                page.upto = item.event.id;
                page.push(item);
            }
            let is_stuck = batch.upto == page.upto && !batch.caught_up;
            page.upto = batch.upto;
            page.has_newer = !batch.caught_up;
            page.ended = batch.ended;
            let is_full = page.items.len() >= limit;
            if batch.caught_up || is_stuck || is_full || Instant::now() >= deadline {
                return Ok(page);
            }
        }
    }

    /// The page that ends before `before`, or with the last event of all.
    pub async fn page_before(
        &self,
        run: Uuid,
        before: Option<EventId>,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let deadline = Instant::now() + PAGE_DEADLINE;
        // Where the run ends, in Postgres and in Redis.
        let stored = self.store.coverage(run).await?;
        let watermark = stored.map_or(EventId::ZERO, |coverage| coverage.watermark);
        let after_end = self.end(run).await?.max(watermark).next();
        let before = before.map_or(after_end, |before| before.min(after_end));

        // Events that are not stored yet have dense ids. Begin as many ids further back as events
        // are missing, and go back further each time the filter leaves too few.
        let mut at = before;
        let mut page = Page::starting(before.cursor_before());
        page.has_newer = before < after_end;
        page.ended = !page.has_newer
            && after_end == watermark.next()
            && stored.is_none_or(|coverage| coverage.ended);
        let mut step = limit as u64;
        while at > watermark.next() && page.items.len() < limit {
            let from = if at.epoch == watermark.epoch {
                let seq = at.cursor_before().seq.saturating_sub(step);
                watermark.max(EventId::new(at.epoch, seq))
            } else if at.cursor_before().seq > step {
                EventId::new(at.epoch, at.cursor_before().seq - step)
            } else {
                watermark
            };
            let older = self.newest_between(run, from, at, filter, limit - page.items.len());
            let older = older.await?;
            let is_full = older.bytes + page.bytes > PAGE_BYTES;
            page.prepend(older);
            page.keep_newest(limit);
            page.has_older |= from > EventId::ZERO;
            if is_full || page.after > from || Instant::now() >= deadline {
                return Ok(page);
            }
            at = from.next();
            step = step.saturating_mul(4);
        }

        // The rest comes from Postgres and the archive, where the store finds the first id.
        let missing = limit - page.items.len();
        let limit = u16::try_from(missing).unwrap_or(PAGE_EVENTS);
        if missing > 0 && page.bytes < PAGE_BYTES {
            let start = self
                .history
                .page_start(run, at, filter.channels(), limit)
                .await?;
            let older = match start {
                None => Page::default(),
                Some(start) => {
                    let from = start.oldest.cursor_before();
                    let mut older = self.newest_between(run, from, at, filter, missing).await?;
                    older.has_older |= start.has_older;
                    older
                }
            };
            page.prepend(older);
            page.keep_newest(MAX_PAGE_EVENTS);
        }
        Ok(page)
    }

    /// The newest events after `from` and before `at` that the filter accepts.
    async fn newest_between(
        &self,
        run: Uuid,
        from: EventId,
        at: EventId,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let mut page = Page::starting(from);
        let enough = Enough {
            before: at,
            ..Enough::ALL
        };
        loop {
            let batch = self.batch_of(run, page.upto, filter, enough).await?;
            let is_stuck = batch.upto == page.upto && !batch.caught_up;
            page.upto = batch.upto;
            for item in batch.items {
                if item.event.id >= at {
                    return Ok(page);
                }
                page.push(item);
                page.keep_newest(limit);
            }
            if is_stuck || batch.caught_up || page.upto.next() >= at {
                return Ok(page);
            }
        }
    }

    /// The cursor after which the line of this number follows, counted from 1. The number of an
    /// event is its seq; in a later epoch the last seqs of all epochs before are added. A number
    /// that no event has, because it was stored under another, stands for the next event.
    pub async fn cursor_of_line(&self, run: Uuid, number: u64) -> Result<EventId, ReadError> {
        let mut rest = number.saturating_sub(1);
        let mut reached = EventId::ZERO;
        for last in self.history.epochs(run).await? {
            if rest < last.seq {
                return Ok(EventId::new(last.epoch, rest));
            }
            rest -= last.seq;
            reached = last;
        }
        // Not stored yet.
        let end = self.end(run).await?;
        if end.epoch == reached.epoch {
            let seq = reached.seq.saturating_add(rest).min(end.seq);
            return Ok(EventId::new(end.epoch, seq));
        }
        match self.moment_after(run, reached).await? {
            Some(first) => Ok(EventId::new(first.id.epoch, rest.min(end.seq))),
            None => Ok(reached),
        }
    }

    /// The cursor after which the first event follows that was appended at or after this time (Unix
    /// milliseconds, the clock of Redis, which unlike any producer's clock agrees with the order of
    /// a run). Bisects the ids: about 20 queries for a million events.
    pub async fn cursor_at(&self, run: Uuid, time_ms: u64) -> Result<EventId, ReadError> {
        let end = self.end(run).await?;
        let mut epochs = self.history.epochs(run).await?;
        epochs.retain(|last| last.epoch != end.epoch);
        epochs.push(end);
        // An epoch is the time at which it began.
        let last = epochs.iter().rfind(|last| last.epoch <= time_ms);
        let Some(&last) = last else {
            return Ok(EventId::ZERO);
        };
        let start = EventId::new(last.epoch, 0);
        let mut low = match self.moment_after(run, start).await? {
            Some(first) if first.appended_ms < time_ms => first.id,
            _ => return Ok(start),
        };
        // All events up to `low` were appended before that time, and none after `high`.
        let mut high = last.max(low);
        while low.seq < high.seq {
            let middle = EventId::new(low.epoch, low.seq + (high.seq - low.seq) / 2);
            match self.moment_after(run, middle).await? {
                Some(found) if found.id.epoch == low.epoch && found.appended_ms < time_ms => {
                    low = found.id;
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The first event after a cursor, with the time of its append.
    async fn moment_after(&self, run: Uuid, cursor: EventId) -> Result<Option<Moment>, ReadError> {
        if let Some(moment) = self.history.moment_after(run, cursor).await? {
            return Ok(Some(moment));
        }
        let Ok(live) = self.read_redis(run, cursor, 1).await else {
            return Ok(None);
        };
        let moment = |entry: Entry| Moment {
            id: entry.first().max(cursor.next()),
            appended_ms: entry.appended_ms,
        };
        Ok(live.items.into_iter().flatten().next().map(moment))
    }
}
