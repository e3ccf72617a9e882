//! Pages of a watched run from before its ring, read once for all viewers that need them.
//!
//! Viewers that reconnect after an outage, all with old cursors, or that were too slow for the
//! ring, need much the same events. The first of them causes the read of a page, by a task of its
//! own, and the page is kept for the others.
//!
//! Data: pages in the order in which they were read. A page need not begin where another ends. The
//! first page of a new viewer is small, so that it sees something at once; a page that continues
//! another holds about [`PAGE_BYTES`]. Bounds: the bytes that the run may keep, but always the
//! newest page, and [`MAX_READS`] at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use runcast_common::protocol::event_id::EventId;
use runcast_history::reader::ReadLimit;

use crate::frame::Frames;

/// Reads of one run at a time: enough for viewers at different cursors, few enough that those at
/// the same cursor share a read.
const MAX_READS: usize = 4;

/// What a page that continues another should hold: as much as a connection takes at once, so that
/// little is read in vain for a viewer that leaves.
const PAGE_BYTES: usize = 256 * 1024;

/// Entries of a page at most, where they are small.
const MAX_PAGE_ENTRIES: usize = 256;

/// Pages of one run.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    /// By the id after which they begin.
    pages: BTreeMap<EventId, Arc<Frames>>,
    order: VecDeque<EventId>,
    size: usize,
    /// Cursors from which a read is under way.
    reading: Vec<EventId>,
    /// Bytes that a Redis entry makes as frames, by the last page that came from Redis.
    entry_bytes: Option<usize>,
}

impl Backfill {
    /// The page that holds what follows `cursor`, if it is kept.
    pub(crate) fn lookup(&self, cursor: EventId) -> Option<Arc<Frames>> {
        let (_, page) = self.pages.range(..=cursor).next_back()?;
        (cursor < page.upto).then(|| Arc::clone(page))
    }

    /// Returns how much the caller should read from `cursor`. None if that read is under way
    /// already, or [`MAX_READS`] others are. The caller ends the read by
    /// [`end_read`](Self::end_read).
    pub(crate) fn begin_read(&mut self, cursor: EventId) -> Option<ReadLimit> {
        if self.reading.len() >= MAX_READS || self.reading.contains(&cursor) {
            return None;
        }
        self.reading.push(cursor);
        let previous = self.pages.range(..cursor).next_back();
        let continues = previous.is_some_and(|(_, page)| page.upto == cursor);
        Some(match (continues, self.entry_bytes) {
            (false, _) => ReadLimit::FIRST_PAGE,
            (true, None) => ReadLimit::FULL_PAGE,
            (true, Some(bytes)) => ReadLimit {
                entries: (PAGE_BYTES / bytes.max(1)).clamp(1, MAX_PAGE_ENTRIES),
                ..ReadLimit::FULL_PAGE
            },
        })
    }

    /// Ends the read from `cursor`.
    pub(crate) fn end_read(&mut self, cursor: EventId) {
        self.reading.retain(|reading| *reading != cursor);
    }

    /// Keeps a page that was made of `redis_entries` entries from Redis, and evicts the oldest
    /// pages beyond `max_bytes`.
    pub(crate) fn insert(&mut self, page: Frames, redis_entries: usize, max_bytes: usize) {
        if let Some(bytes) = page.size().checked_div(redis_entries) {
            self.entry_bytes = Some(bytes);
        }
        let start = page.after;
        self.size += page.size();
        if let Some(replaced) = self.pages.insert(start, Arc::new(page)) {
            self.size -= replaced.size();
            self.order.retain(|one| *one != start);
        }
        self.order.push_back(start);
        while self.size > max_bytes && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front()
                && let Some(page) = self.pages.remove(&oldest)
            {
                self.size -= page.size();
            }
        }
    }

    /// Drops all pages.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.order.clear();
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Encoder;

    fn id(seq: u64) -> EventId {
        EventId::new(1, seq)
    }

    fn page(after: u64, upto: u64) -> Frames {
        let mut encoder = Encoder::new(id(after));
        encoder.gap(id(upto), id(upto + 1), None, "test");
        encoder.finish()
    }

    #[test]
    fn a_lookup_finds_the_page_that_holds_the_cursor() {
        let mut backfill = Backfill::default();
        backfill.insert(page(0, 10), 1, 1 << 20);
        backfill.insert(page(5, 20), 1, 1 << 20);
        let upto = |seq| backfill.lookup(id(seq)).map(|page| page.upto.seq);
        assert_eq!(
            (upto(0), upto(4), upto(5), upto(19)),
            (Some(10), Some(10), Some(20), Some(20))
        );
        assert_eq!(upto(20), None);
    }

    #[test]
    fn pages_are_evicted_beyond_the_bound_but_never_the_newest() {
        let mut backfill = Backfill::default();
        // Later pages have longer ids.
        let one = page(20, 30).size();
        for after in [0, 10, 20] {
            backfill.insert(page(after, after + 10), 1, 2 * one);
        }
        assert!(backfill.lookup(id(0)).is_none());
        assert!(backfill.lookup(id(10)).is_some());
        backfill.insert(page(20, 30), 1, 0);
        assert_eq!(backfill.size, one);
        assert!(backfill.lookup(id(25)).is_some());
    }

    #[test]
    fn reads_from_one_cursor_are_shared_and_bounded_over_all() {
        let mut backfill = Backfill::default();
        assert!(backfill.begin_read(id(1)).is_some());
        assert!(backfill.begin_read(id(1)).is_none());
        for seq in 2..=4 {
            assert!(backfill.begin_read(id(seq)).is_some());
        }
        assert!(backfill.begin_read(id(5)).is_none());
        backfill.end_read(id(1));
        assert!(backfill.begin_read(id(5)).is_some());
    }

    #[test]
    fn a_first_page_is_small_and_later_ones_fit_the_size_of_entries() {
        let mut backfill = Backfill::default();
        assert_eq!(backfill.begin_read(id(0)), Some(ReadLimit::FIRST_PAGE));
        let one = page(0, 10);
        let size = one.size();
        backfill.insert(one, 1, 1 << 20);
        let entries = backfill.begin_read(id(10)).map(|limit| limit.entries);
        assert_eq!(entries, Some((PAGE_BYTES / size).min(MAX_PAGE_ENTRIES)));
        assert_eq!(backfill.begin_read(id(5)), Some(ReadLimit::FIRST_PAGE));
    }
}
