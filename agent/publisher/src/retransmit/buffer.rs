//! The retransmit buffer: every event that Postgres does not hold yet.
//!
//! A Redis acknowledgement is not durable: a flush or a failover may lose events that Redis had
//! acknowledged. So an event leaves the buffer only when the durable seq has passed it.
//!
//! Data: an index of batches with dense seqs, oldest first; the bodies of batches that are in no
//! file (*pinned*); and, with a [`Spool`], the newest bodies beside their copy on disk (*hot*),
//! since those are nearly always the ones to send. Any other body is read from the spool again.
//!
//! Bounds: pinned bodies take [`Options::buffer_bytes`](crate::Options::buffer_bytes), by
//! [`Batch::cost`]; hot ones [`MAX_HOT_BYTES`]; both exceed that by at most one batch. The index
//! takes [`MAX_BATCHES`] of 32 bytes. At any of these bounds, or at the spool's limit, the buffer
//! accepts nothing more.
//!
//! If a write to the spool fails, the batch is pinned instead and the spool is tried again a second
//! later. One warning is logged per outage.

use std::collections::VecDeque;
use std::time::Instant;

use runcast_common::protocol::seal::Seal;

use super::bodies::Bodies;
use crate::queue::batch::Batch;
use crate::queue::pending::gap_line;
use crate::spool::recovery::{BatchRef, RecordLocation, RecoveredSpool};
use crate::spool::writer::Spool;

/// Hot bodies in memory: four times what may be in flight.
pub(crate) const MAX_HOT_BYTES: usize = 8 * 1024 * 1024;

/// Batches in the index. A busy stream of small events makes 100 of them a second: three hours.
pub(crate) const MAX_BATCHES: usize = 1 << 20;

/// Reason of a `gap` event for spooled events that cannot be read.
pub(super) const UNREADABLE_REASON: &str = "unreadable";

/// What [`RetransmitBuffer::read_from`] returns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BufferRead {
    Batch(Batch),
    /// The events from `first` to `last` cannot be read any more; their lines had so many bytes.
    Hole {
        first: u64,
        last: u64,
        bytes: u64,
    },
}

/// Batches that may have to be sent again.
#[derive(Debug)]
pub(crate) struct RetransmitBuffer {
    index: VecDeque<BatchRef>,
    pub(super) pinned: Bodies,
    pub(super) hot: Bodies,
    max_bytes: usize,
    seal: Seal,
    spool: Option<Spool>,
    has_warned: bool,
}

impl RetransmitBuffer {
    /// An empty buffer for `max_bytes` of bodies in memory.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            index: VecDeque::new(),
            pinned: Bodies::default(),
            hot: Bodies::default(),
            max_bytes,
            seal: Seal::default(),
            spool: None,
            has_warned: false,
        }
    }

    /// A buffer that continues a spool, with `max_bytes` of memory for when writes to it fail.
    pub(crate) fn with_spool(max_bytes: usize, spool: Spool, recovered: RecoveredSpool) -> Self {
        Self {
            index: recovered.batches,
            seal: recovered.seal,
            spool: Some(spool),
            ..Self::new(max_bytes)
        }
    }

    /// The seal over every event that was ever pushed.
    pub(crate) const fn seal(&self) -> Seal {
        self.seal
    }

    /// Seq of the newest event that was ever pushed.
    pub(crate) const fn newest(&self) -> u64 {
        self.seal.events
    }

    /// Seq of the oldest event in the buffer, or of the next one to come.
    pub(crate) fn oldest(&self) -> u64 {
        self.index
            .front()
            .map_or(self.seal.events + 1, |oldest| oldest.first)
    }

    pub(crate) const fn spool(&mut self) -> Option<&mut Spool> {
        self.spool.as_mut()
    }

    /// Up to which seq every event in the buffer is in a file; 0 without a spool.
    pub(crate) fn spooled_up_to(&self) -> u64 {
        match (&self.spool, self.pinned.batches.front()) {
            (None, _) => 0,
            (Some(_), None) => self.seal.events,
            (Some(_), Some(pinned)) => pinned.first - 1,
        }
    }

    /// Whether the buffer accepts one more batch.
    pub(crate) fn has_room(&self) -> bool {
        self.pinned.cost < self.max_bytes
            && self.index.len() < MAX_BATCHES
            && self.spool.as_ref().is_none_or(Spool::has_room)
    }

    /// Number of batches in the index.
    #[cfg(test)]
    pub(super) fn batches(&self) -> usize {
        self.index.len()
    }

    /// Appends a batch after the newest event, and returns it with the seqs that it got there.
    pub(crate) fn push(&mut self, mut batch: Batch) -> Batch {
        batch.first = self.seal.events + 1;
        let mut after = self.seal;
        after.add_lines(batch.count, &batch.body);
        let location = self.write(after, &batch);
        match location {
            RecordLocation::Disk { .. } => {
                self.hot.push(batch.clone());
                self.hot.shrink_to(MAX_HOT_BYTES);
            }
            _ => self.pinned.push(batch.clone()),
        }
        self.index.push_back(BatchRef {
            first: batch.first,
            count: batch.count,
            location,
        });
        self.seal = after;
        batch
    }

    /// Appends a `gap` event for spooled events that were lost and have no seq.
    pub(crate) fn push_gap(&mut self, variation: u16, count: Option<u64>, bytes: u64) {
        let line = gap_line(variation, count, bytes, UNREADABLE_REASON);
        self.push(Batch::new(self.newest() + 1, 1, line));
    }

    fn write(&mut self, after: Seal, batch: &Batch) -> RecordLocation {
        let Some(spool) = self.spool.as_mut().filter(|spool| !spool.has_failed()) else {
            return RecordLocation::Memory;
        };
        match spool.append(self.seal, after, batch) {
            Ok(location) => {
                if std::mem::take(&mut self.has_warned) {
                    tracing::warn!(
                        folder = %spool.folder().display(),
                        "the spool can be written again"
                    );
                }
                location
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    tracing::warn!(
                        folder = %spool.folder().display(),
                        %error,
                        "the spool cannot be written, events are kept in memory only"
                    );
                }
                RecordLocation::Memory
            }
        }
    }

    /// The batch that contains `seq`, cut to start there; none if there is no such event.
    pub(crate) fn read_from(&mut self, seq: u64) -> Option<BufferRead> {
        let at = self.index.partition_point(|batch| batch.last() < seq);
        let found = *self.index.get(at)?;
        if found.first > seq {
            return None;
        }
        let batch = match found.location {
            RecordLocation::Memory => self.pinned.get(found.first)?,
            RecordLocation::Disk { segment, offset } => match self.hot.get(found.first) {
                Some(batch) => batch,
                None => match self.read_spool(&found, segment, offset) {
                    Some(batch) => batch,
                    None => return Some(self.mark_unreadable(at)),
                },
            },
            RecordLocation::Hole { bytes } => {
                return Some(BufferRead::Hole {
                    first: found.first,
                    last: found.last(),
                    bytes,
                });
            }
        };
        Some(BufferRead::Batch(batch.starting_at(seq)))
    }

    fn read_spool(&mut self, expected: &BatchRef, segment: u32, offset: u32) -> Option<Batch> {
        let spool = self.spool.as_mut()?;
        match spool.read(segment, offset) {
            Ok(batch) if (batch.first, batch.count) == (expected.first, expected.count) => {
                Some(batch)
            }
            Ok(_another_batch) => None,
            Err(error) => {
                tracing::warn!(
                    folder = %spool.folder().display(),
                    %error,
                    first = expected.first,
                    count = expected.count,
                    "spooled events cannot be read"
                );
                None
            }
        }
    }

    fn mark_unreadable(&mut self, at: usize) -> BufferRead {
        let batch = &mut self.index[at];
        batch.location = RecordLocation::Hole { bytes: 0 };
        BufferRead::Hole {
            first: batch.first,
            last: batch.last(),
            bytes: 0,
        }
    }

    /// Drops every batch that is durable as a whole.
    pub(crate) fn release(&mut self, durable: u64) {
        while self
            .index
            .front()
            .is_some_and(|oldest| oldest.last() <= durable)
        {
            self.index.pop_front();
        }
        self.pinned.release(durable);
        self.hot.release(durable);
        if let Some(spool) = &mut self.spool {
            spool.release(durable);
        }
    }

    /// Redis holds events up to `stored` that this buffer never saw: the previous process wrote on
    /// until it was replaced, or the machine died before they were on its disk. Puts them behind
    /// `inherited`, the seal of the previous process, and pushes everything newer again behind
    /// them.
    pub(crate) fn renumber_behind(&mut self, stored: u64, inherited: Seal) {
        let own = self.take_since(inherited);
        let spool = self.spool.as_ref();
        match spool.and_then(|spool| spool.written_late(inherited, stored)) {
            Some(late) => {
                for (batch, after) in late {
                    self.index.push_back(BatchRef {
                        first: batch.first,
                        count: batch.count,
                        location: RecordLocation::Memory,
                    });
                    self.pinned.push(batch);
                    self.seal = after;
                }
            }
            // If Redis loses them too, they become a gap. Their bytes are unknown, so the final
            // seal will not match what Postgres holds, which is the truth.
            None => {
                self.index.push_back(BatchRef {
                    first: inherited.events + 1,
                    count: stored - inherited.events,
                    location: RecordLocation::Hole { bytes: 0 },
                });
                self.seal.events = stored;
            }
        }
        for batch in own {
            self.push(batch);
        }
    }

    /// Removes everything that was pushed since `inherited`, and returns it oldest first.
    fn take_since(&mut self, inherited: Seal) -> Vec<Batch> {
        let mut own = Vec::new();
        while let Some(newest) = self.index.back().copied() {
            if newest.first <= inherited.events {
                break;
            }
            match self.read_from(newest.first) {
                Some(BufferRead::Batch(batch)) => own.push(batch),
                unreadable => {
                    tracing::error!(?unreadable, "events cannot be read to be renumbered");
                }
            }
            self.index.pop_back();
            self.pinned.remove(newest.first);
            self.hot.remove(newest.first);
        }
        self.seal = inherited;
        if let Some(spool) = &mut self.spool {
            spool.close_segment();
        }
        own.reverse();
        own
    }

    /// When the spool must be synced, if it has unsynced data.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        self.spool.as_ref().and_then(Spool::sync_at)
    }

    /// Deletes the spool's files: the run is over, and Postgres holds all of it.
    pub(crate) fn delete_spool(&mut self) {
        if let Some(spool) = self.spool.take() {
            spool.delete();
        }
    }
}
