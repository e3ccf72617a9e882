//! What the queue's lock guards: the batches that wait, and how they are cut and dropped.

use std::collections::VecDeque;

use runcast_common::protocol::event::{self, InvalidEvent, Kind, StatusChange};
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS};
use serde::Serialize;

use super::waiting::{Droppable, Waiting};
use super::{MAX_BYTES, MAX_EVENTS};
use crate::outcome::{PublishError, Stopped};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) variation: u16,
    pub(super) droppable: Droppable,
    pub(super) closed: VecDeque<Waiting>,
    /// The open batch; lines behind `open_bytes` are the rest of one whose payload panicked while it
    /// was written.
    pub(super) open: Waiting,
    pub(super) open_bytes: usize,
    /// Events and bytes in all batches here.
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// Batches in front of which something was dropped.
    pub(super) gaps: usize,
    /// Seq of the newest event that was taken out.
    pub(super) taken: u64,
    /// When output or log was last written, Unix milliseconds.
    pub(super) shown_at: Option<u64>,
    /// The backlog takes nothing more.
    pub(super) is_capped: bool,
    /// Published behind everything else, with the seal over it.
    pub(super) last: Option<StatusChange>,
    pub(super) ended: bool,
    pub(super) stopped: Option<Stopped>,
}

impl Inner {
    pub(super) fn new(variation: u16, taken: u64, droppable: &[Kind]) -> Self {
        Self {
            variation,
            droppable: Droppable::new(droppable),
            closed: VecDeque::new(),
            open: Waiting::default(),
            open_bytes: 0,
            events: 0,
            bytes: 0,
            gaps: 0,
            taken,
            shown_at: None,
            is_capped: false,
            last: None,
            ended: false,
            stopped: None,
        }
    }

    pub(super) fn check_open(&self) -> Result<(), PublishError> {
        match &self.stopped {
            Some(why) => Err(PublishError::Stopped(why.clone())),
            None if self.ended => Err(PublishError::Closed),
            None => Ok(()),
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.events >= MAX_EVENTS || self.bytes >= MAX_BYTES
    }

    /// True if an event of this kind is taken now.
    pub(super) fn has_room_for(&self, kind: Kind) -> bool {
        !self.is_full() || (self.is_capped && self.droppable.holds(kind))
    }

    pub(super) fn newest(&self) -> u64 {
        self.taken + (self.events + self.gaps + usize::from(self.last.is_some())) as u64
    }

    /// Drops the oldest events that may be dropped: all such of one batch.
    pub(super) fn drop_oldest(&mut self) {
        self.close_batch();
        let Some(at) = self.closed.iter().position(|waiting| waiting.droppable > 0) else {
            return;
        };
        let gone = self.closed[at].drop_lines(&self.droppable);
        self.events -= usize::try_from(gone.events).unwrap_or(usize::MAX);
        self.bytes -= usize::try_from(gone.bytes).unwrap_or(usize::MAX);
        if self.closed[at].count == 0
            && let Some(empty) = self.closed.remove(at)
        {
            // One gap for all that is missing here, however much it becomes.
            let next = self.closed.get_mut(at).unwrap_or(&mut self.open);
            next.dropped.add(empty.dropped.events, empty.dropped.bytes);
        }
        let all = self.closed.iter().chain([&self.open]);
        self.gaps = all.filter(|waiting| waiting.dropped.events > 0).count();
    }

    /// Counts events that were never written, behind those that were.
    pub(super) fn note_lost(&mut self, events: u64, bytes: u64) {
        // A gap is told in front of its batch; one that is all gap so far takes this one too.
        if self.open.count > 0 {
            self.close_batch();
        }
        self.gaps += usize::from(self.open.dropped.events == 0);
        self.open.dropped.add(events, bytes);
    }

    /// Writes a line into the open batch; true if the sender must hear of it.
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
            self.shown_at = Some(now);
        }
        self.events += 1;
        self.bytes += lines.len() - start;
        let mut tell = self.open.count == 0;
        if start > 0 && lines.len() > MAX_ENTRY_BYTES {
            let line = lines.split_off(start);
            self.close_batch();
            self.open.lines = line;
            tell = true;
        }
        self.open.count += 1;
        self.open.droppable += u64::from(self.droppable.holds(kind));
        self.open_bytes = self.open.lines.len();
        if self.open.count >= MAX_ENTRY_EVENTS as u64 || self.open_bytes >= MAX_ENTRY_BYTES {
            self.close_batch();
            tell = true;
        }
        Ok(tell)
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
