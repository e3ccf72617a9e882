//! The send window: which seqs were sent, which Redis has acknowledged and which Postgres holds.
//! This is the producer's side of the append script's contract, without any input or output.
//!
//! Data: three seqs, with `durable <= acked` and `durable < next`:
//! - `durable`: Postgres holds everything up to it. It only grows.
//! - `acked`: Redis has acknowledged everything up to it. It shrinks only after the script has been
//!   sent the larger value: by `stored < acked` the script notices that Redis lost events, and
//!   gives the run a larger epoch.
//! - `next`: the next event to send.
//!
//! A hole in the buffer (spooled events that cannot be read any more) is sent as one `gap` event
//! with the seq of its last event, once everything before it is durable: with `base` the call then
//! claims that nothing below is owed, which is true, and the script continues behind the hole. So a
//! damaged record costs its own events and nothing else. If Redis turns out to hold them, nothing
//! is lost.
//!
//! A window that continues another process's spool first learns from Redis how far that process
//! came. If that is further than the spool (the machine died before the data was on disk, or the
//! other process wrote on), events that were pushed meanwhile are renumbered behind it.
//!
//! While the window is *probing*, at most one call is in flight: after a loss or a `full`, the
//! reply to that call decides what happens to all others.

use runcast_common::protocol::seal::Seal;
use runcast_common::scripts::{Append, AppendOutcome, AppendReply};

use super::buffer::{BufferRead, RetransmitBuffer, UNREADABLE_REASON};
use crate::queue::batch::Batch;
use crate::queue::pending::gap_line;

/// What a call of the script asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// To append a batch that starts with this seq.
    Append { first: u64 },
    /// Only the state of the run.
    State,
}

impl Request {
    pub(crate) const fn of(append: &Append<'_>) -> Self {
        match append.count {
            0 => Self::State,
            _ => Self::Append {
                first: append.first,
            },
        }
    }
}

/// What a reply means for the calls in flight behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// They remain valid.
    Advanced,
    /// Sending restarts at another event: they are superseded.
    Rewound,
    /// As `Rewound`, but only after a wait: the run is at its limit in Redis.
    Full,
    /// A newer process has taken over.
    Fenced { by: u64 },
    /// The run was deleted.
    Gone,
}

/// The hole that is being sent as a `gap` event.
#[derive(Debug, Clone, Copy)]
struct SentHole {
    /// Seq of the `gap` event.
    seq: u64,
    events: u64,
    bytes: u64,
}

/// The producer's seqs.
#[derive(Debug)]
pub(crate) struct SendWindow {
    variation: u16,
    next: u64,
    acked: u64,
    durable: u64,
    probing: bool,
    /// The seal that the previous process left, until Redis has replied for the first time.
    inherited: Option<Seal>,
    hole: Option<SentHole>,
}

impl SendWindow {
    /// A window that starts at the oldest event of the buffer.
    pub(crate) fn new(buffer: &RetransmitBuffer, variation: u16) -> Self {
        let durable = buffer.oldest() - 1;
        let seal = buffer.seal();
        Self {
            variation,
            next: durable + 1,
            acked: durable,
            durable,
            probing: false,
            inherited: (seal.events > 0).then_some(seal),
            hole: None,
        }
    }

    /// Whether this process continues another one and has not learned yet how far that one came.
    pub(crate) const fn awaits_first_reply(&self) -> bool {
        self.inherited.is_some()
    }

    /// Highest seq that Redis has acknowledged.
    pub(crate) const fn acked(&self) -> u64 {
        self.acked
    }

    /// Highest seq that Postgres holds.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether Postgres holds everything in the buffer.
    pub(crate) const fn is_durable(&self, buffer: &RetransmitBuffer) -> bool {
        self.durable >= buffer.newest()
    }

    /// Whether everything in the buffer has been sent.
    pub(crate) const fn is_sent(&self, buffer: &RetransmitBuffer) -> bool {
        self.next > buffer.newest()
    }

    /// The batch to send next, if one may be sent while `in_flight` calls of at most
    /// `max_in_flight` are unanswered.
    pub(crate) fn next_batch(
        &mut self,
        buffer: &mut RetransmitBuffer,
        in_flight: usize,
        max_in_flight: usize,
    ) -> Option<Batch> {
        let limit = if self.probing { 1 } else { max_in_flight };
        if in_flight >= limit || self.awaits_first_reply() {
            return None;
        }
        match buffer.read_from(self.next)? {
            BufferRead::Batch(batch) => Some(batch),
            BufferRead::Hole { first, last, bytes } => self.gap_for_hole(first, last, bytes),
        }
    }

    /// The `gap` event in place of a hole, once everything before it is durable.
    fn gap_for_hole(&mut self, first: u64, last: u64, bytes: u64) -> Option<Batch> {
        if self.durable + 1 < self.next {
            return None;
        }
        let hole = match self.hole {
            Some(hole) if hole.seq == last => hole,
            _ => {
                let (events, all) = (last - self.durable, last + 1 - first);
                SentHole {
                    seq: last,
                    events,
                    // It is unknown how the bytes spread over the events: take a proportional
                    // share.
                    bytes: bytes / all * events + bytes % all * events / all,
                }
            }
        };
        self.hole = Some(hole);
        let line = gap_line(
            self.variation,
            Some(hole.events),
            hole.bytes,
            UNREADABLE_REASON,
        );
        Some(Batch {
            skips: last - self.durable - 1,
            ..Batch::new(last, 1, line)
        })
    }

    pub(crate) const fn mark_sent(&mut self, batch: &Batch) {
        self.next = batch.last() + 1;
    }

    /// The connection is gone: whatever was not acknowledged is sent again.
    pub(crate) const fn on_disconnect(&mut self) {
        self.next = self.acked + 1;
    }

    /// Redis executed neither this call nor those behind it.
    pub(crate) fn on_rejected(&mut self, request: Request) {
        if let Request::Append { first } = request {
            self.rewind_to(first);
        }
    }

    /// A superseded call was answered: only the durable seq still counts.
    pub(crate) fn on_stale_reply(&mut self, buffer: &mut RetransmitBuffer, reply: &AppendReply) {
        self.advance_durable(buffer, reply.durable);
    }

    pub(crate) fn on_reply(
        &mut self,
        buffer: &mut RetransmitBuffer,
        request: Request,
        reply: &AppendReply,
    ) -> NextStep {
        if let AppendOutcome::Stored { stored } = reply.outcome {
            self.take_over(buffer, stored.max(reply.durable));
        }
        self.advance_durable(buffer, reply.durable);
        match (reply.outcome, request) {
            (AppendOutcome::Fenced { by }, _) => NextStep::Fenced { by },
            (AppendOutcome::Gone, _) => NextStep::Gone,
            (AppendOutcome::Stored { stored }, Request::State) if stored < self.acked => {
                // Redis lost events. The script learns it from the next append, which still claims
                // the old `acked`.
                self.rewind_to(stored + 1);
                NextStep::Rewound
            }
            (AppendOutcome::Stored { stored }, Request::State) => {
                self.advance_acked(stored);
                NextStep::Advanced
            }
            (AppendOutcome::Stored { stored }, Request::Append { .. }) => {
                self.probing = false;
                self.advance_acked(stored);
                NextStep::Advanced
            }
            (AppendOutcome::Gap { expected }, _) => {
                // The script has seen the old `acked`; from now on Redis holds less.
                self.acked = self.acked.min(expected.saturating_sub(1)).max(self.durable);
                self.rewind_to(expected);
                NextStep::Rewound
            }
            (AppendOutcome::Full, request) => {
                self.on_rejected(request);
                NextStep::Full
            }
        }
    }

    /// The gateway has told how far Postgres is, without being asked.
    pub(crate) fn on_durable(&mut self, buffer: &mut RetransmitBuffer, durable: u64) {
        self.advance_durable(buffer, durable);
    }

    fn advance_durable(&mut self, buffer: &mut RetransmitBuffer, durable: u64) {
        // Before the first reply these may be other events with the seqs of ours: it is unknown how
        // far the previous process came.
        if durable > self.durable && !self.awaits_first_reply() {
            self.durable = durable;
            buffer.release(durable);
            self.acked = self.acked.max(durable);
            self.next = self.next.max(durable + 1);
        }
    }

    /// The first reply: the previous process wrote whatever Redis holds beyond the spool.
    fn take_over(&mut self, buffer: &mut RetransmitBuffer, stored: u64) {
        if let Some(inherited) = self.inherited.take()
            && stored > inherited.events
        {
            tracing::warn!(
                events = stored - inherited.events,
                "Redis holds more events than the spool, publishing continues behind them"
            );
            buffer.renumber_behind(stored, inherited);
        }
    }

    fn advance_acked(&mut self, stored: u64) {
        self.acked = stored.max(self.durable);
        self.next = self.next.max(self.acked + 1);
    }

    fn rewind_to(&mut self, seq: u64) {
        // A `gap` event stands for its whole hole, so it is sent again from where the hole starts.
        let is_hole = self.hole.is_some_and(|hole| hole.seq == seq);
        self.next = match is_hole {
            true => self.durable + 1,
            false => seq.max(self.durable + 1),
        };
        self.probing = true;
    }
}
