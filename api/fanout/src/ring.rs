//! The most recent frames of a run, in memory that all its viewers share.
//!
//! Data: batches in order and without a hole; each begins at the id where the one before it ended.
//! Bounds: the bytes that the caller allows, up to [`RING_BYTES`]. The oldest batches are evicted
//! first. A viewer whose cursor is older reads from Redis or Postgres until it has caught up.

use std::collections::VecDeque;
use std::sync::Arc;

use runcast_common::protocol::event_id::EventId;

use crate::frame::Frames;

/// Frames that one watched run keeps in memory at most: seconds of a fast run, all of a quiet one.
pub const RING_BYTES: usize = 4 * 1024 * 1024;

/// Bytes after which a lookup returns.
const MAX_LOOKUP_BYTES: usize = 256 * 1024;

/// The recent frames of one run.
#[derive(Debug)]
pub struct Ring {
    batches: VecDeque<Arc<Frames>>,
    size: usize,
    /// The ring covers the ids after this one ...
    start: EventId,
    /// ... up to and including this one.
    end: EventId,
}

/// What the ring holds for a cursor.
#[derive(Debug)]
pub enum Lookup {
    /// The batches that follow it: all of them, or about [`MAX_LOOKUP_BYTES`].
    Next(Vec<Arc<Frames>>),
    /// The cursor is at the end of the ring.
    CaughtUp,
    /// The cursor lies before the ring.
    Behind,
    /// The tail does not know yet where the run ends.
    Unknown,
}

impl Ring {
    /// An empty ring that begins after `start`.
    pub const fn new(start: EventId) -> Self {
        Self {
            batches: VecDeque::new(),
            size: 0,
            start,
            end: start,
        }
    }

    /// The last id that it covers.
    pub const fn end(&self) -> EventId {
        self.end
    }

    /// Appends a batch that begins where the ring ends, and evicts the oldest ones beyond
    /// `max_bytes`.
    pub fn push(&mut self, frames: Frames, max_bytes: usize) {
        debug_assert_eq!(
            frames.after, self.end,
            "batches follow each other without a hole"
        );
        self.end = frames.upto;
        self.size += frames.size();
        self.batches.push_back(Arc::new(frames));
        self.shrink_to(max_bytes.min(RING_BYTES));
    }

    /// Evicts the oldest batches beyond `max_bytes`. The newest batch stays, however large.
    pub fn shrink_to(&mut self, max_bytes: usize) {
        while self.size > max_bytes && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.size -= oldest.size();
                self.start = oldest.upto;
            }
        }
    }

    /// What follows `cursor`.
    pub fn lookup(&self, cursor: EventId) -> Lookup {
        if cursor < self.start {
            return Lookup::Behind;
        }
        let index = self.batches.partition_point(|batch| batch.upto <= cursor);
        let mut room = MAX_LOOKUP_BYTES;
        let mut next = Vec::new();
        for batch in self.batches.range(index..) {
            next.push(Arc::clone(batch));
            room = room.saturating_sub(batch.size());
            if room == 0 {
                break;
            }
        }
        match next.is_empty() {
            true => Lookup::CaughtUp,
            false => Lookup::Next(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Encoder;

    fn batch(after: u64, upto: u64) -> Frames {
        let mut encoder = Encoder::new(EventId::new(1, after));
        encoder.gap(
            EventId::new(1, upto),
            EventId::new(1, upto + 1),
            None,
            "test",
        );
        encoder.finish()
    }

    #[test]
    fn a_lookup_finds_the_batches_after_any_cursor() {
        let mut ring = Ring::new(EventId::new(1, 10));
        assert!(matches!(ring.lookup(EventId::new(1, 10)), Lookup::CaughtUp));
        ring.push(batch(10, 20), RING_BYTES);
        ring.push(batch(20, 30), RING_BYTES);
        let next = |seq| match ring.lookup(EventId::new(1, seq)) {
            Lookup::Next(frames) => frames.first().map(|first| first.upto.seq),
            _ => None,
        };
        assert_eq!(
            (next(10), next(15), next(20)),
            (Some(20), Some(20), Some(30))
        );
        assert!(matches!(ring.lookup(EventId::new(1, 30)), Lookup::CaughtUp));
        assert!(matches!(ring.lookup(EventId::new(1, 9)), Lookup::Behind));
        assert!(matches!(ring.lookup(EventId::new(0, 99)), Lookup::Behind));
    }

    #[test]
    fn the_oldest_batches_are_evicted_at_the_bound() {
        let mut ring = Ring::new(EventId::new(1, 0));
        let one = batch(0, 1).size();
        let many = RING_BYTES / one + 10;
        for seq in 0..many as u64 {
            ring.push(batch(seq, seq + 1), usize::MAX);
        }
        assert!(ring.size <= RING_BYTES);
        assert!(matches!(ring.lookup(EventId::new(1, 0)), Lookup::Behind));
        assert!(matches!(
            ring.lookup(EventId::new(1, many as u64 - 1)),
            Lookup::Next(_)
        ));
    }
}
