//! The most recent frames of a run, in memory that all its viewers share.
//!
//! Batches lie in order and without a seam: each begins at the id where the one before ended. The
//! ring holds at most as many bytes as it is told, up to [`RING_BYTES`]; the oldest batches fall off, and a viewer whose
//! cursor is older is given what Redis or Postgres holds until it has climbed back.

use std::collections::VecDeque;
use std::sync::Arc;

use runcast_common::protocol::event_id::EventId;

use super::frame::Frames;

/// Most bytes of frames that one watched run keeps in memory: seconds of a fast run, all of a quiet one.
pub const RING_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that a viewer is given at a time.
const TURN_BYTES: usize = 256 * 1024;

/// The recent frames of one run.
#[derive(Debug)]
pub struct Ring {
    batches: VecDeque<Arc<Frames>>,
    size: usize,
    /// The ring covers the ids behind this one ...
    start: EventId,
    /// ... up to and with this one.
    end: EventId,
}

/// What the ring says to a cursor.
#[derive(Debug)]
pub enum Lookup {
    /// The batches that hold what comes next: all that there is, or enough for one turn.
    Next(Vec<Arc<Frames>>),
    /// Nothing is newer.
    CaughtUp,
    /// The cursor is older than what the ring holds.
    Behind,
    /// It is not known yet where the run ends.
    Unknown,
}

impl Ring {
    /// An empty ring that begins behind `start`.
    #[must_use]
    pub const fn new(start: EventId) -> Self {
        Self {
            batches: VecDeque::new(),
            size: 0,
            start,
            end: start,
        }
    }

    /// The last id that it covers.
    #[must_use]
    pub const fn end(&self) -> EventId {
        self.end
    }

    /// Bytes that it keeps.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Adds a batch that begins where the ring ends, and lets the oldest go that do not fit into `most` bytes.
    pub fn push(&mut self, frames: Frames, most: usize) {
        debug_assert_eq!(
            frames.after, self.end,
            "batches follow each other without a seam"
        );
        self.end = frames.upto;
        self.size += frames.size();
        self.batches.push_back(Arc::new(frames));
        self.shrink_to(most.min(RING_BYTES));
    }

    /// Lets the oldest batches go. The newest stays, however large.
    pub fn shrink_to(&mut self, most: usize) {
        while self.size > most && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.size -= oldest.size();
                self.start = oldest.upto;
            }
        }
    }

    /// What comes behind `cursor`.
    #[must_use]
    pub fn lookup(&self, cursor: EventId) -> Lookup {
        if cursor < self.start {
            return Lookup::Behind;
        }
        let index = self.batches.partition_point(|batch| batch.upto <= cursor);
        let mut room = TURN_BYTES;
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
    use super::super::frame::Encoder;
    use super::*;

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
    fn every_cursor_finds_its_place() {
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
    fn the_oldest_batches_fall_off_at_the_bound() {
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
