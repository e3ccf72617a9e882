//! What the queue's lock guards: the waiting batches, and how they are cut, counted and dropped.

use std::collections::VecDeque;

use runcast_common::protocol::event::{self, InvalidEvent, Kind, StatusChange};
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS};
use serde::Serialize;

use super::pending::{DroppableKinds, PendingBatch};
use crate::error::{PublishError, Stopped};

/// Events in the queue: an eighth of a second of the fastest stream, enough to survive a slow reply
/// without blocking the caller.
pub(crate) const MAX_EVENTS: usize = 64 * 1024;

/// Bytes in the queue: 32 full batches, a bound for large events, which reach [`MAX_EVENTS`] late.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) variation: u16,
    pub(super) droppable: DroppableKinds,
    pub(super) closed: VecDeque<PendingBatch>,
    /// The open batch. Bytes behind `open_bytes` are left of a line whose payload panicked while it
    /// was written.
    pub(super) open: PendingBatch,
    pub(super) open_bytes: usize,
    /// Events in all batches.
    pub(super) events: usize,
    /// Bytes of all batches.
    pub(super) bytes: usize,
    /// Batches with a gap in front of them.
    pub(super) gaps: usize,
    /// Seq of the newest event that was taken.
    pub(super) last_taken: u64,
    /// When output or a log line was last written, in Unix milliseconds.
    pub(super) last_text_at: Option<u64>,
    /// Whether a full queue drops its oldest droppable events.
    pub(super) drops_oldest: bool,
    /// Published behind everything else, with the seal over it.
    pub(super) last: Option<StatusChange>,
    pub(super) ended: bool,
    pub(super) stopped: Option<Stopped>,
}

impl QueueState {
    pub(super) fn new(variation: u16, last_taken: u64, droppable: &[Kind]) -> Self {
        Self {
            variation,
            droppable: DroppableKinds::new(droppable),
            closed: VecDeque::new(),
            open: PendingBatch::default(),
            open_bytes: 0,
            events: 0,
            bytes: 0,
            gaps: 0,
            last_taken,
            last_text_at: None,
            drops_oldest: false,
            last: None,
            ended: false,
            stopped: None,
        }
    }

    pub(super) fn check_open(&self) -> Result<(), PublishError> {
        match &self.stopped {
            Some(reason) => Err(PublishError::Stopped(reason.clone())),
            None if self.ended => Err(PublishError::Closed),
            None => Ok(()),
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.events >= MAX_EVENTS || self.bytes >= MAX_BYTES
    }

    pub(super) fn has_room_for(&self, kind: Kind) -> bool {
        !self.is_full() || (self.drops_oldest && self.droppable.contains(kind))
    }

    pub(super) fn newest(&self) -> u64 {
        self.last_taken + (self.events + self.gaps + usize::from(self.last.is_some())) as u64
    }

    /// Drops the droppable events of the oldest batch that has any.
    pub(super) fn drop_oldest(&mut self) {
        self.close_batch();
        let Some(at) = self.closed.iter().position(|batch| batch.droppable > 0) else {
            return;
        };
        let dropped = self.closed[at].drop_lines(&self.droppable);
        self.events -= usize::try_from(dropped.events).unwrap_or(usize::MAX);
        self.bytes -= usize::try_from(dropped.bytes).unwrap_or(usize::MAX);
        if self.closed[at].count == 0
            && let Some(empty) = self.closed.remove(at)
        {
            // Consecutive losses share one gap.
            let next = self.closed.get_mut(at).unwrap_or(&mut self.open);
            next.dropped.add(empty.dropped.events, empty.dropped.bytes);
        }
        let all = self.closed.iter().chain([&self.open]);
        self.gaps = all.filter(|batch| batch.dropped.events > 0).count();
    }

    /// Counts events that were never written, behind those that were.
    pub(super) fn note_lost(&mut self, events: u64, bytes: u64) {
        // A gap stands in front of its batch. A batch that is only a gap so far takes this one too.
        if self.open.count > 0 {
            self.close_batch();
        }
        self.gaps += usize::from(self.open.dropped.events == 0);
        self.open.dropped.add(events, bytes);
    }

    /// Writes a line into the open batch. Returns whether the sender must be notified.
    pub(super) fn write(
        &mut self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<bool, InvalidEvent> {
        let start = self.open_bytes;
        let lines = &mut self.open.lines;
        lines.truncate(start);
        let now = event::now_ms();
        event::write_line(lines, kind, self.variation, now, payload)?;
        if let Kind::Output | Kind::Log = kind {
            self.last_text_at = Some(now);
        }
        self.events += 1;
        self.bytes += lines.len() - start;
        let mut notify = self.open.count == 0;
        // A line that does not fit starts the next batch.
        if start > 0 && lines.len() > MAX_ENTRY_BYTES {
            let line = lines.split_off(start);
            self.close_batch();
            self.open.lines = line;
            notify = true;
        }
        self.open.count += 1;
        self.open.droppable += u64::from(self.droppable.contains(kind));
        self.open_bytes = self.open.lines.len();
        // A batch that is full now is closed at once.
        if self.open.count >= MAX_ENTRY_EVENTS as u64 || self.open_bytes >= MAX_ENTRY_BYTES {
            self.close_batch();
            notify = true;
        }
        Ok(notify)
    }

    pub(super) fn close_batch(&mut self) {
        if self.open.is_empty() {
            return;
        }
        // The next batch is likely as large as this one.
        let next = Vec::with_capacity(self.open.lines.len());
        let mut closed = std::mem::take(&mut self.open);
        self.open.lines = next;
        closed.lines.truncate(self.open_bytes);
        self.open_bytes = 0;
        self.closed.push_back(closed);
    }
}
