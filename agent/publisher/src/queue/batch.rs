//! A batch: consecutive event lines of one producer that become one stream entry.
//!
//! Its body is shared bytes: storing it for a resend, cutting off its front and handing it to the
//! connection copies no lines. Bounds: [`MAX_ENTRY_EVENTS`] events and [`MAX_ENTRY_BYTES`] of body,
//! except that a single longer event forms a batch of its own.
//!
//! [`MAX_ENTRY_EVENTS`]: runcast_common::protocol::limits::MAX_ENTRY_EVENTS
//! [`MAX_ENTRY_BYTES`]: runcast_common::protocol::limits::MAX_ENTRY_BYTES

use bytes::Bytes;

/// Memory of a batch beside its body: the shared buffer's header, its place in a list, and what the
/// allocator rounds up. Without it a million batches of one event would stay below the byte bounds.
const OVERHEAD_BYTES: usize = 128;

/// Consecutive event lines, each with its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Producer seq of the first event.
    pub(crate) first: u64,
    /// Number of events, at least 1.
    pub(crate) count: u64,
    /// Seqs directly before the batch that no event will ever have; usually 0.
    pub(crate) skips: u64,
    /// The lines.
    pub(crate) body: Bytes,
}

impl Batch {
    /// A batch of `count` lines. Frees memory that the buffer reserved but does not use.
    pub(crate) fn new(first: u64, count: u64, mut lines: Vec<u8>) -> Self {
        if lines.capacity() - lines.len() > lines.len() / 4 {
            lines.shrink_to_fit();
        }
        Self {
            first,
            count,
            skips: 0,
            body: lines.into(),
        }
    }

    /// Producer seq of the last event.
    pub(crate) const fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// Memory that the batch occupies.
    pub(crate) const fn cost(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }

    /// The part from `seq` on, which must be one of its events. The lines stay shared.
    pub(crate) fn starting_at(&self, seq: u64) -> Self {
        debug_assert!((self.first..=self.last()).contains(&seq));
        let mut at = 0;
        for _ in self.first..seq {
            let line = memchr::memchr(b'\n', &self.body[at..]);
            at += line.map_or(self.body.len() - at, |length| length + 1);
        }
        Self {
            first: seq,
            count: self.last() + 1 - seq,
            skips: 0,
            body: self.body.slice(at..),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_cut_off_at_a_line() {
        let batch = Batch::new(7, 3, b"a\nbb\nccc\n".to_vec());
        assert_eq!(batch.last(), 9);
        assert_eq!(batch.starting_at(7), batch);
        let rest = batch.starting_at(9);
        assert_eq!(
            (rest.first, rest.count, rest.last(), rest.body.as_ref()),
            (9, 1, 9, &b"ccc\n"[..])
        );
    }
}
