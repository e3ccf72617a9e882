//! Out of the queue, into the ledger and so into the spool: also while nothing can be sent.
//!
//! Full batches are taken at once. An open one is taken when it may be sent; with a spool also after
//! [`UNSPOOLED`], since what is only in the queue dies with the process. At the end of the queue the
//! spool is synced, so that everything is safe before the publisher is told.
//!
//! A process that goes on where another ended gives no seqs before Redis has said how far it is, but
//! waits for that no longer than [`HOLD`]: the queue takes events meanwhile. The last status waits until the end, since
//! its seal counts what the other has written too.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Sender;
use crate::ledger::Ledger;
use crate::progress::Progress;
use crate::queue::Taken;

/// Longest time that an event stays outside of the spool, while there is room in that.
const UNSPOOLED: Duration = Duration::from_millis(50);

/// Longest wait for the first answer of Redis before seqs are given: it answers within milliseconds,
/// or is down.
const HOLD: Duration = Duration::from_secs(2);

/// What the taking of batches knows of itself.
#[derive(Debug)]
pub(super) struct Keeping {
    /// The queue is empty and stays so.
    pub(super) ended: bool,
    /// The last status is in the ledger: the run is over for this producer.
    is_final: bool,
    /// Nothing is taken before.
    hold_until: Option<Instant>,
    /// Nothing will be sent any more.
    is_rest: bool,
    /// When an open batch was first left behind.
    partial_since: Option<Instant>,
}

impl Keeping {
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self {
            ended: false,
            is_final: false,
            hold_until: ledger.is_unsure().then(|| Instant::now() + HOLD),
            is_rest: false,
            partial_since: None,
        }
    }
}

impl Sender {
    /// Waits for something while batches go on into the backlog.
    pub(super) async fn wait_keeping<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            self.keep(false);
            self.tell_spooled();
            let timer = self.keep_until();
            tokio::select! {
                done = &mut what => return done,
                () = self.queue.arrived() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// Moves batches into the ledger while it has room, the open one too if asked; true if an open
    /// one is left behind.
    pub(super) fn keep(&mut self, mut partial: bool) -> bool {
        if let Some(spool) = self.ledger.backlog().spool() {
            spool.sync_if_due();
        }
        if self.is_held() {
            return false;
        }
        let overdue = |since: Instant| since + UNSPOOLED <= Instant::now();
        partial |= self.has_spool() && self.keeping.partial_since.is_some_and(overdue);
        while !self.keeping.ended {
            let has_room = self.ledger.has_room();
            self.queue.set_capped(!has_room);
            if !has_room {
                self.keeping.partial_since = None;
                return false;
            }
            match self.queue.take(partial) {
                Taken::Batch(batch) => {
                    self.keeping.partial_since = None;
                    self.ledger.accept(batch);
                    partial = false;
                }
                Taken::Last if self.ledger.is_unsure() && !self.keeping.is_rest => return false,
                Taken::Last => self.keep_last(),
                Taken::Partial => {
                    self.keeping.partial_since.get_or_insert_with(Instant::now);
                    return true;
                }
                Taken::Empty => return false,
                Taken::Ended => {
                    self.keeping.ended = true;
                    if let Some(spool) = self.ledger.backlog().spool() {
                        spool.sync_now();
                    }
                }
            }
        }
        false
    }

    /// Nothing will be sent any more: what still waits goes into the spool, as far as there is room.
    pub(crate) fn keep_rest(&mut self) {
        if !self.has_spool() {
            return;
        }
        self.keeping.hold_until = None;
        self.keeping.is_rest = true;
        while self.keep(true) {}
        if let Some(spool) = self.ledger.backlog().spool() {
            spool.sync_now();
        }
        self.tell_spooled();
    }

    fn keep_last(&mut self) {
        let seal = self.ledger.backlog().seal();
        if let Some(batch) = self.queue.take_last(seal) {
            // Small enough for a disk that is full but for its last block: from its seal the next
            // process knows how much is missing before it, and can tell.
            if let Some(spool) = self.ledger.backlog().spool() {
                spool.forgive();
            }
            self.ledger.accept(batch);
            self.keeping.is_final = true;
        }
    }

    fn is_held(&mut self) -> bool {
        let until = self.keeping.hold_until;
        let is_held = self.ledger.is_unsure() && until.is_some_and(|until| Instant::now() < until);
        if !is_held {
            self.keeping.hold_until = None;
        }
        is_held
    }

    /// When [`keep`](Self::keep) has something to do that nobody wakes it for.
    pub(super) fn keep_until(&mut self) -> Option<Instant> {
        let is_spooled = self.has_spool();
        let spooling = self.keeping.partial_since.filter(|_since| is_spooled);
        let sync = self.ledger.backlog().sync_at().map(Instant::from_std);
        let hold = self.keeping.hold_until;
        let spooling = spooling.map(|since| since + UNSPOOLED);
        spooling.into_iter().chain(sync).chain(hold).min()
    }

    fn has_spool(&mut self) -> bool {
        self.ledger.backlog().spool().is_some()
    }

    /// Tells those who close while nothing can be sent.
    fn tell_spooled(&mut self) {
        let spooled = self.ledger.backlog().spooled_up_to();
        self.progress.send_if_modified(|progress: &mut Progress| {
            std::mem::replace(&mut progress.spooled, spooled) != spooled
        });
    }

    /// Everything is stored: a run that is over needs its files no more.
    pub(super) fn forget_the_run(&mut self) {
        if self.keeping.is_final {
            self.ledger.backlog().remove();
        }
    }
}
