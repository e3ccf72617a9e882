//! What has been sent, what Redis has acknowledged, what Postgres holds: the producer's side of the
//! append script's contract, without any input or output.
//!
//! Data: the [`Backlog`], which knows the newest seq, and three more, `durable <= acked`,
//! `durable < next`:
//! - `durable`: Postgres holds everything up to it. It only grows.
//! - `acked`: Redis has acknowledged everything up to it. It shrinks only after the script has been
//!   told the larger figure, since by `stored < acked` the script notices that Redis lost events
//!   and gives the run a larger epoch.
//! - `next`: the next event to send.
//!
//! A hole in the backlog (spooled events that cannot be read any more) is sent as one `gap` event under
//! the seq of the last of them, once everything before is durable: the call then claims by `base` that
//! nothing below is owed, which is true, and the script goes on behind the hole. So one damaged record
//! costs its own events and nothing else. If Redis turns out to hold them, nothing is lost at all.
//!
//! A ledger that goes on where another process ended first hears how far Redis is. If that is further
//! than the spool (the machine died before the disk had everything, or the other process wrote on), what was taken
//! in meanwhile goes behind it.
//!
//! While the ledger is *probing* one batch is in flight at a time: after a loss or a `full`, when the
//! answer to this batch decides what becomes of all that follow.

use runcast_common::protocol::seal::Seal;
use runcast_common::scripts::{Appended, Outcome};

use crate::backlog::{Backlog, Found};
use crate::batch::Batch;
use crate::queue::gap_line;

/// Why spooled events are missing, as a gap event says it.
const UNREADABLE: &str = "unreadable";

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
    variation: u16,
    next: u64,
    acked: u64,
    durable: u64,
    probing: bool,
    /// What the process before has left, until Redis has been heard.
    inherited: Option<Seal>,
    /// The hole at which sending stands: the seq of its gap event, events, bytes.
    hole: Option<(u64, u64, u64)>,
}

impl Ledger {
    /// Goes on where the backlog ends.
    pub(crate) fn new(backlog: Backlog, variation: u16) -> Self {
        let durable = backlog.oldest() - 1;
        let seal = backlog.seal();
        Self {
            variation,
            next: durable + 1,
            acked: durable,
            durable,
            probing: false,
            inherited: (seal.events > 0).then_some(seal),
            hole: None,
            backlog,
        }
    }

    /// What is not durable.
    pub(crate) const fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// Seq of the newest event that was ever taken in.
    pub(crate) const fn newest(&self) -> u64 {
        self.backlog.seal().events
    }

    /// True if it goes on for another process and has not heard yet how far Redis is.
    pub(crate) const fn is_unsure(&self) -> bool {
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

    /// True if Postgres holds everything that was taken in.
    pub(crate) const fn is_durable(&self) -> bool {
        self.durable >= self.newest()
    }

    /// True if everything that was taken in has been sent.
    pub(crate) const fn is_sent(&self) -> bool {
        self.next > self.newest()
    }

    /// True if one more batch may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    /// Takes in a batch behind the newest one.
    pub(crate) fn accept(&mut self, batch: Batch) {
        self.backlog.push(batch);
    }

    /// Takes in a gap event for what was lost before it had a seq.
    pub(crate) fn accept_gap(&mut self, count: Option<u64>, bytes: u64) {
        let line = gap_line(self.variation, count, bytes, UNREADABLE);
        self.accept(Batch::new(self.newest() + 1, 1, line));
    }

    /// The batch to send next, if one may be sent while `in_flight` calls are unanswered.
    pub(crate) fn next_to_send(&mut self, in_flight: usize, window: usize) -> Option<Batch> {
        let window = if self.probing { 1 } else { window };
        if in_flight >= window || self.is_unsure() {
            return None;
        }
        match self.backlog.from(self.next)? {
            Found::Batch(batch) => Some(batch),
            Found::Hole { first, last, bytes } => self.over_hole(first, last, bytes),
        }
    }

    /// The gap event in place of a hole, once nothing before it is owed.
    fn over_hole(&mut self, first: u64, last: u64, bytes: u64) -> Option<Batch> {
        if self.durable + 1 < self.next {
            return None;
        }
        let (count, bytes) = match self.hole {
            Some((at, count, bytes)) if at == last => (count, bytes),
            _ => {
                let (count, all) = (last - self.durable, last + 1 - first);
                // How the bytes spread over the events is not known.
                (count, bytes / all * count + bytes % all * count / all)
            }
        };
        self.hole = Some((last, count, bytes));
        let line = gap_line(self.variation, Some(count), bytes, UNREADABLE);
        Some(Batch {
            skips: last - self.durable - 1,
            ..Batch::new(last, 1, line)
        })
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
        if let Outcome::Stored { stored } = answer.outcome {
            self.take_over(stored.max(answer.durable));
        }
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
        // Until it is known how far the process before came, these may be other events under the seqs of ours.
        if durable > self.durable && !self.is_unsure() {
            self.durable = durable;
            self.backlog.release(durable);
            self.acked = self.acked.max(durable);
            self.next = self.next.max(durable + 1);
        }
    }

    /// Redis was heard for the first time: what it holds beyond the spool was written by the process before.
    fn take_over(&mut self, stored: u64) {
        if let Some(inherited) = self.inherited.take()
            && stored > inherited.events
        {
            tracing::warn!(
                events = stored - inherited.events,
                "Redis holds more than was found in the spool; publishing goes on behind it"
            );
            self.backlog.go_behind(stored, inherited);
        }
    }

    fn note_stored(&mut self, stored: u64) {
        self.acked = stored.max(self.durable);
        self.next = self.next.max(self.acked + 1);
    }

    fn start_over_at(&mut self, seq: u64) {
        // The gap event stands for the whole hole.
        let over_hole = self.hole.is_some_and(|(at, _, _)| at == seq);
        self.next = match over_hole {
            true => self.durable + 1,
            false => seq.max(self.durable + 1),
        };
        self.probing = true;
    }
}

#[cfg(test)]
mod tests;
