//! What Postgres does not hold yet, kept so that it can be sent again.
//!
//! A Redis acknowledgement is not durable: a flush or a failover may take back what Redis had
//! acknowledged. So an event leaves the backlog only when the durable seq has passed it.
//!
//! Data: an index of batches without a hole between their seqs, oldest first; the bodies of those
//! that are in no file (*pinned*); and, with a [`Spool`], the newest bodies beside their copy on disk
//! (*hot*), since those are nearly always the ones to be sent. Any other body is read again.
//!
//! Bounds: pinned bodies take [`DEFAULT_BYTES`] unless chosen otherwise, by [`Batch::cost`]; hot ones
//! [`HOT_BYTES`]; the index [`MAX_ENTRIES`] of 32 bytes; the first two exceeded by at most one batch.
//! At any of these bounds, or at the spool's cap, nothing more is taken in.
//!
//! A spool that cannot be written is not used for the batch at hand, which is pinned instead, and is
//! tried again a second later: one warning for each outage.

use std::collections::VecDeque;
use std::time::Instant;

use runcast_common::protocol::seal::Seal;

mod bodies;

use self::bodies::Bodies;
use crate::batch::Batch;
use crate::spool::Spool;
use crate::spool::chain::{Chain, Entry, Place};

/// Memory of the backlog unless chosen otherwise: half a second of the fastest stream (500,000
/// events of 250 bytes a second), several times what the persister needs for a turn, and little
/// beside what a process that writes so much uses itself.
pub(crate) const DEFAULT_BYTES: usize = 64 * 1024 * 1024;

/// Bodies that stay in memory beside their copy on disk: what may be in flight, four times.
pub(crate) const HOT_BYTES: usize = 8 * 1024 * 1024;

/// Batches at most. A lively stream of small events makes 100 of them a second: three hours.
pub(crate) const MAX_ENTRIES: usize = 1 << 20;

/// What [`Backlog::from`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Events to be sent.
    Batch(Batch),
    /// Nothing can be read up to and with seq `last`: so many bytes of events that were once here.
    Hole { first: u64, last: u64, bytes: u64 },
}

/// Batches that may have to be sent again.
#[derive(Debug)]
pub(crate) struct Backlog {
    entries: VecDeque<Entry>,
    pinned: Bodies,
    hot: Bodies,
    most: usize,
    seal: Seal,
    spool: Option<Spool>,
    is_warned: bool,
}

impl Backlog {
    /// An empty backlog of `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            pinned: Bodies::default(),
            hot: Bodies::default(),
            most,
            seal: Seal::default(),
            spool: None,
            is_warned: false,
        }
    }

    /// A backlog on files that goes on where they end, and `most` bytes of memory where those fail.
    pub(crate) fn spooled(most: usize, spool: Spool, chain: Chain) -> Self {
        Self {
            entries: chain.entries,
            seal: chain.seal,
            spool: Some(spool),
            ..Self::new(most)
        }
    }

    /// Over everything that was ever taken in; its `events` is the newest seq.
    pub(crate) const fn seal(&self) -> Seal {
        self.seal
    }

    /// Seq of the oldest event here, or of the next one to come.
    pub(crate) fn oldest(&self) -> u64 {
        self.entries
            .front()
            .map_or(self.seal.events + 1, |oldest| oldest.first)
    }

    /// The files, if there are any.
    pub(crate) const fn spool(&mut self) -> Option<&mut Spool> {
        self.spool.as_mut()
    }

    /// Up to which seq every event here is in a file; 0 without files.
    pub(crate) fn spooled_up_to(&self) -> u64 {
        match (&self.spool, self.pinned.bodies.front()) {
            (None, _) => 0,
            (Some(_), None) => self.seal.events,
            (Some(_), Some(pinned)) => pinned.first - 1,
        }
    }

    /// True if one more batch may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.pinned.cost < self.most
            && self.entries.len() < MAX_ENTRIES
            && self.spool.as_ref().is_none_or(Spool::has_room)
    }

    /// Keeps a batch as the newest one; gives it with its seqs.
    pub(crate) fn push(&mut self, mut batch: Batch) -> Batch {
        batch.first = self.seal.events + 1;
        let mut after = self.seal;
        after.add_lines(batch.count, &batch.body);
        let place = self.write(after, &batch);
        match place {
            Place::Disk { .. } => {
                self.hot.push(batch.clone());
                self.hot.shrink_to(HOT_BYTES);
            }
            _ => self.pinned.push(batch.clone()),
        }
        self.entries.push_back(Entry {
            first: batch.first,
            count: batch.count,
            place,
        });
        self.seal = after;
        batch
    }

    fn write(&mut self, after: Seal, batch: &Batch) -> Place {
        let Some(spool) = self.spool.as_mut().filter(|spool| !spool.has_failed()) else {
            return Place::Memory;
        };
        match spool.append(self.seal, after, batch) {
            Ok(place) => {
                if std::mem::take(&mut self.is_warned) {
                    tracing::warn!(folder = %spool.folder().display(), "the spool can be written again");
                }
                place
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    let folder = spool.folder().display();
                    tracing::warn!(%folder, %error, "the spool cannot be written, events are kept in memory only");
                }
                Place::Memory
            }
        }
    }

    /// What stands at `seq`, from `seq` on; none if there is no such event.
    pub(crate) fn from(&mut self, seq: u64) -> Option<Found> {
        let at = self.entries.partition_point(|entry| entry.last() < seq);
        let entry = *self.entries.get(at)?;
        if entry.first > seq {
            return None;
        }
        let batch = match entry.place {
            Place::Memory => self.pinned.get(entry.first)?,
            Place::Disk {
                segment,
                at: offset,
            } => match self.hot.get(entry.first) {
                Some(batch) => batch,
                None => match self.read_again(&entry, segment, offset) {
                    Some(batch) => batch,
                    None => return Some(self.give_up(at)),
                },
            },
            Place::Hole { bytes } => {
                return Some(Found::Hole {
                    first: entry.first,
                    last: entry.last(),
                    bytes,
                });
            }
        };
        Some(Found::Batch(batch.from(seq)))
    }

    fn read_again(&mut self, entry: &Entry, segment: u32, at: u32) -> Option<Batch> {
        let spool = self.spool.as_mut()?;
        match spool.read(segment, at) {
            Ok(batch) if (batch.first, batch.count) == (entry.first, entry.count) => Some(batch),
            Ok(_another) => None,
            Err(error) => {
                let folder = spool.folder().display();
                tracing::warn!(%folder, %error, first = entry.first, count = entry.count, "spooled events cannot be read");
                None
            }
        }
    }

    /// What could not be read is a hole from now on.
    fn give_up(&mut self, at: usize) -> Found {
        let entry = &mut self.entries[at];
        entry.place = Place::Hole { bytes: 0 };
        Found::Hole {
            first: entry.first,
            last: entry.last(),
            bytes: 0,
        }
    }

    /// Drops every batch that is durable as a whole.
    pub(crate) fn release(&mut self, durable: u64) {
        while self
            .entries
            .front()
            .is_some_and(|oldest| oldest.last() <= durable)
        {
            self.entries.pop_front();
        }
        self.pinned.release(durable);
        self.hot.release(durable);
        if let Some(spool) = &mut self.spool {
            spool.release(durable);
        }
    }

    /// Redis holds events up to `stored` that this backlog never saw: because the process before wrote on
    /// until it was replaced, or because the machine died before they were on its disk. What was taken
    /// in since `inherited` goes behind them, once more.
    pub(crate) fn go_behind(&mut self, stored: u64, inherited: Seal) {
        let own = self.take_back(inherited);
        let late = self.spool.as_ref();
        match late.and_then(|spool| spool.written_late(inherited, stored)) {
            Some(late) => {
                for (batch, after) in late {
                    self.entries.push_back(Entry {
                        first: batch.first,
                        count: batch.count,
                        place: Place::Memory,
                    });
                    self.pinned.push(batch);
                    self.seal = after;
                }
            }
            // Should Redis lose them too they are a gap. Their bytes are not known, so the seal will not
            // fit, and that is the truth.
            None => {
                self.entries.push_back(Entry {
                    first: inherited.events + 1,
                    count: stored - inherited.events,
                    place: Place::Hole { bytes: 0 },
                });
                self.seal.events = stored;
            }
        }
        for batch in own {
            self.push(batch);
        }
    }

    /// Takes out what was taken in since `inherited`, oldest first.
    fn take_back(&mut self, inherited: Seal) -> Vec<Batch> {
        let mut own = Vec::new();
        while let Some(newest) = self.entries.back().copied() {
            if newest.first <= inherited.events {
                break;
            }
            match self.from(newest.first) {
                Some(Found::Batch(batch)) => own.push(batch),
                lost => tracing::error!(?lost, "events cannot be sent under other seqs"),
            }
            self.entries.pop_back();
            self.pinned
                .bodies
                .retain(|batch| batch.first != newest.first);
            self.hot.bodies.retain(|batch| batch.first != newest.first);
        }
        self.pinned.count_again();
        self.hot.count_again();
        self.seal = inherited;
        if let Some(spool) = &mut self.spool {
            spool.close_segment();
        }
        own.reverse();
        own
    }

    /// When the spool wants to be synced.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        self.spool.as_ref().and_then(Spool::sync_at)
    }

    /// Deletes the files: the run is over and stored.
    pub(crate) fn remove(&mut self) {
        if let Some(spool) = self.spool.take() {
            spool.remove();
        }
    }
}

#[cfg(test)]
mod tests;
