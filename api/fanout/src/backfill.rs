//! Pages of a watched run that lie before its ring, read once for all viewers who need them.
//!
//! Viewers who come back after an outage, all with old cursors, or who are slow and fell off the ring, want much the
//! same events. A page is read when the first of them asks, by a task of its own, and is kept for the others.
//!
//! Data: pages in the order in which they were read; at most so many bytes as the run may keep, but always the newest
//! page; at most [`READS`] of a run are read at a time. A page need not begin where another ends. The first page of a
//! viewer that has just come is small, so that it sees something at once; those that continue another hold about
//! [`PAGE_BYTES`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use runcast_common::protocol::event_id::EventId;

use super::frame::Frames;
use runcast_history::reader::ReadLimit;

/// Reads of one run at a time: enough for viewers in different places, few enough that those in the same one
/// share.
const READS: usize = 4;

/// What a page that continues another should hold: what a connection takes at once, so that little is read in vain for a
/// viewer that leaves.
const PAGE_BYTES: usize = 256 * 1024;

/// Most entries of a page, where they are small.
const MOST_ENTRIES: usize = 256;

/// Pages of one run.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    pages: BTreeMap<EventId, Arc<Frames>>,
    order: VecDeque<EventId>,
    size: usize,
    reading: Vec<EventId>,
    /// Bytes of an entry in Redis, as frames, by the last page from there.
    entry_size: Option<usize>,
}

impl Backfill {
    /// The page that holds what comes behind `cursor`, if it is here.
    pub(super) fn lookup(&self, cursor: EventId) -> Option<Arc<Frames>> {
        let (_, page) = self.pages.range(..=cursor).next_back()?;
        (cursor < page.upto).then(|| Arc::clone(page))
    }

    /// How much the caller shall read from `cursor`, and then say [`done`](Self::done); nothing if that is under way, or
    /// as much as may be.
    pub(super) fn begin(&mut self, cursor: EventId) -> Option<ReadLimit> {
        if self.reading.len() >= READS || self.reading.contains(&cursor) {
            return None;
        }
        self.reading.push(cursor);
        let before = self.pages.range(..cursor).next_back();
        let continues = before.is_some_and(|(_, page)| page.upto == cursor);
        Some(match (continues, self.entry_size) {
            (false, _) => ReadLimit::FIRST,
            (true, None) => ReadLimit::WIDE,
            (true, Some(size)) => ReadLimit {
                entries: (PAGE_BYTES / size.max(1)).clamp(1, MOST_ENTRIES),
                ..ReadLimit::WIDE
            },
        })
    }

    /// The read from `cursor` is over.
    pub(super) fn done(&mut self, cursor: EventId) {
        self.reading.retain(|reading| *reading != cursor);
    }

    /// Keeps a page made of so many entries from Redis, and as many of those before as fit into `most` bytes.
    pub(super) fn keep(&mut self, page: Frames, entries: usize, most: usize) {
        if let Some(size) = page.size().checked_div(entries) {
            self.entry_size = Some(size);
        }
        let start = page.after;
        self.size += page.size();
        if let Some(same) = self.pages.insert(start, Arc::new(page)) {
            self.size -= same.size();
            self.order.retain(|one| *one != start);
        }
        self.order.push_back(start);
        while self.size > most && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front()
                && let Some(page) = self.pages.remove(&oldest)
            {
                self.size -= page.size();
            }
        }
    }

    /// Drops all pages.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.order.clear();
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Encoder;
    use super::*;

    fn id(seq: u64) -> EventId {
        EventId::new(1, seq)
    }

    fn page(after: u64, upto: u64) -> Frames {
        let mut encoder = Encoder::new(id(after));
        encoder.gap(id(upto), id(upto + 1), None, "test");
        encoder.finish()
    }

    #[test]
    fn a_cursor_finds_the_page_it_stands_in() {
        let mut older = Backfill::default();
        older.keep(page(0, 10), 1, 1 << 20);
        older.keep(page(5, 20), 1, 1 << 20);
        let upto = |seq| older.lookup(id(seq)).map(|page| page.upto.seq);
        assert_eq!(
            (upto(0), upto(4), upto(5), upto(19)),
            (Some(10), Some(10), Some(20), Some(20))
        );
        assert_eq!(upto(20), None);
    }

    #[test]
    fn it_keeps_what_fits_and_always_the_newest() {
        let mut older = Backfill::default();
        // The later a page, the longer its ids.
        let one = page(20, 30).size();
        for after in [0, 10, 20] {
            older.keep(page(after, after + 10), 1, 2 * one);
        }
        assert!(older.lookup(id(0)).is_none());
        assert!(older.lookup(id(10)).is_some());
        older.keep(page(20, 30), 1, 0);
        assert_eq!(older.size, one);
        assert!(older.lookup(id(25)).is_some());
    }

    #[test]
    fn nobody_reads_the_same_twice_at_a_time() {
        let mut older = Backfill::default();
        assert!(older.begin(id(1)).is_some());
        assert!(older.begin(id(1)).is_none());
        for seq in 2..=4 {
            assert!(older.begin(id(seq)).is_some());
        }
        assert!(older.begin(id(5)).is_none());
        older.done(id(1));
        assert!(older.begin(id(5)).is_some());
    }

    #[test]
    fn a_first_page_is_small_and_the_next_ones_fit_the_size_of_entries() {
        let mut older = Backfill::default();
        assert_eq!(older.begin(id(0)), Some(ReadLimit::FIRST));
        let one = page(0, 10);
        let size = one.size();
        older.keep(one, 1, 1 << 20);
        let entries = older.begin(id(10)).map(|step| step.entries);
        assert_eq!(entries, Some((PAGE_BYTES / size).min(MOST_ENTRIES)));
        assert_eq!(older.begin(id(5)), Some(ReadLimit::FIRST));
    }
}
