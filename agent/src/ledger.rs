//! What has been sent, what Redis has acknowledged, what Postgres holds: the producer's side of the
//! append script's contract, without any input or output.
//!
//! Data: the [`Backlog`], and four seqs, `durable <= acked`, `durable < next`:
//! - `durable`: Postgres holds everything up to it. It only grows.
//! - `acked`: Redis has acknowledged everything up to it. It shrinks only after the script has been
//!   told the larger figure, since by `stored < acked` the script notices that Redis lost events
//!   and gives the run a larger epoch.
//! - `next`: the next event to send.
//!
//! While the ledger is *probing* one batch is in flight at a time: after a loss or a `full`, when the
//! answer to this batch decides what becomes of all that follow.

use runcast_common::script::{Appended, Outcome};

use crate::backlog::Backlog;
use crate::batch::Batch;

/// What a call of the script asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To append a batch that starts with this seq.
    Append { first: u64 },
    /// Only how things stand.
    State,
}

/// What an answer means for what is in flight behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As hoped.
    Advanced,
    /// Sending starts over at another event: answers to earlier calls no longer count.
    Rewound,
    /// As rewound, but not before a wait: the run holds as much as it may.
    Wait,
    /// A newer process has taken over.
    Fenced { by: u64 },
}

/// The producer's bookkeeping.
#[derive(Debug)]
pub(crate) struct Ledger {
    backlog: Backlog,
    /// Seq of the newest event in the backlog, or ever in it.
    newest: u64,
    next: u64,
    acked: u64,
    durable: u64,
    probing: bool,
}

impl Ledger {
    /// Nothing published yet, with room for so many bytes of what is not durable.
    pub(crate) const fn new(backlog_bytes: usize) -> Self {
        Self {
            backlog: Backlog::new(backlog_bytes),
            newest: 0,
            next: 1,
            acked: 0,
            durable: 0,
            probing: false,
        }
    }

    /// Highest seq that Redis has acknowledged.
    pub(crate) const fn acked(&self) -> u64 {
        self.acked
    }

    /// Highest seq that Postgres holds.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// True if Postgres holds everything that was taken in.
    pub(crate) const fn is_durable(&self) -> bool {
        self.durable >= self.newest
    }

    /// True if everything that was taken in has been sent.
    pub(crate) const fn is_sent(&self) -> bool {
        self.next > self.newest
    }

    /// True if one more batch may be taken in.
    pub(crate) const fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    /// Takes in the batch that follows the newest one.
    pub(crate) fn accept(&mut self, batch: Batch) {
        self.newest = batch.last();
        self.backlog.push(batch);
    }

    /// The batch to send next, if one may be sent while `in_flight` calls are unanswered.
    pub(crate) fn to_send(&self, in_flight: usize, window: usize) -> Option<Batch> {
        let window = if self.probing { 1 } else { window };
        if in_flight >= window {
            return None;
        }
        self.backlog.from(self.next)
    }

    /// The batch is on its way.
    pub(crate) const fn sent(&mut self, batch: &Batch) {
        self.next = batch.last() + 1;
    }

    /// The connection broke: what was not acknowledged goes out again.
    pub(crate) const fn disconnected(&mut self) {
        self.next = self.acked + 1;
    }

    /// The script was not carried out for this call, nor for those behind it.
    pub(crate) fn refused(&mut self, asked: Asked) {
        if let Asked::Append { first } = asked {
            self.start_over_at(first);
        }
    }

    /// Takes an answer that no longer counts, except for what Postgres holds.
    pub(crate) fn answered_late(&mut self, answer: &Appended) {
        self.note_durable(answer.durable);
    }

    /// Takes the answer to a call.
    pub(crate) fn answered(&mut self, asked: Asked, answer: &Appended) -> Verdict {
        self.note_durable(answer.durable);
        match (answer.outcome, asked) {
            (Outcome::Fenced { by }, _) => Verdict::Fenced { by },
            (Outcome::Stored { stored }, Asked::State) if stored < self.acked => {
                // Redis lost events. It is told so by the next append, which still claims `acked`.
                self.start_over_at(stored + 1);
                Verdict::Rewound
            }
            (Outcome::Stored { stored }, Asked::State) => {
                self.note_stored(stored);
                Verdict::Advanced
            }
            (Outcome::Stored { stored }, Asked::Append { .. }) => {
                self.probing = false;
                self.note_stored(stored);
                Verdict::Advanced
            }
            (Outcome::Gap { expected }, _) => {
                // The script has seen the old `acked`; from now on Redis holds less.
                self.acked = self.acked.min(expected.saturating_sub(1)).max(self.durable);
                self.start_over_at(expected);
                Verdict::Rewound
            }
            (Outcome::Full, asked) => {
                self.refused(asked);
                Verdict::Wait
            }
        }
    }

    fn note_durable(&mut self, durable: u64) {
        if durable > self.durable {
            self.durable = durable;
            self.backlog.release(durable);
            self.acked = self.acked.max(durable);
            self.next = self.next.max(durable + 1);
        }
    }

    fn note_stored(&mut self, stored: u64) {
        self.acked = stored.max(self.durable);
        self.next = self.next.max(self.acked + 1);
    }

    fn start_over_at(&mut self, seq: u64) {
        self.next = seq.max(self.durable + 1);
        self.probing = true;
    }
}

#[cfg(test)]
mod tests;
