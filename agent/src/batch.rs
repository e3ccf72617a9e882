//! A batch: consecutive event lines of one producer that travel as one entry.
//!
//! Its body is shared bytes, so keeping it for a resend, cutting a known part off its front and
//! handing it to the connection cost no copy of the lines. Bounds: [`MAX_ENTRY_EVENTS`] events and
//! [`MAX_ENTRY_BYTES`] of body, except that a single longer event travels alone.
//!
//! [`MAX_ENTRY_EVENTS`]: runcast_common::limits::MAX_ENTRY_EVENTS
//! [`MAX_ENTRY_BYTES`]: runcast_common::limits::MAX_ENTRY_BYTES

use bytes::Bytes;

/// What a batch costs beside its body: the shared buffer's header, its place in a list, and what
/// the allocator rounds up. It keeps a million one-event batches from slipping through byte bounds.
const OVERHEAD: usize = 128;

/// Consecutive event lines, each with its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Producer seq of the first event.
    pub(crate) first: u64,
    /// Number of events, at least 1.
    pub(crate) count: u64,
    /// Seqs just before it that nothing will ever be sent under; mostly none.
    pub(crate) skips: u64,
    /// The lines.
    pub(crate) body: Bytes,
}

impl Batch {
    /// Takes over a buffer of `count` lines, giving back memory that it reserved in vain.
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

    /// Memory that it holds.
    pub(crate) const fn cost(&self) -> usize {
        self.body.len() + OVERHEAD
    }

    /// The part from `seq` on, which must be one of its events; the lines stay shared.
    pub(crate) fn from(&self, seq: u64) -> Self {
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
    fn a_known_front_is_cut_off_at_a_line() {
        let batch = Batch::new(7, 3, b"a\nbb\nccc\n".to_vec());
        assert_eq!(batch.last(), 9);
        assert_eq!(batch.from(7), batch);
        let rest = batch.from(9);
        assert_eq!(
            (rest.first, rest.count, rest.last(), rest.body.as_ref()),
            (9, 1, 9, &b"ccc\n"[..])
        );
    }
}
