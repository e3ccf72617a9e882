//! Takes batches out of the queue and puts them into the retransmit buffer, and thereby into the
//! spool. This continues while Redis is unreachable.
//!
//! Closed batches are taken at once. The open batch is taken when it may be sent and, with a spool,
//! also after [`MAX_UNSPOOLED`], because events that are only in the queue die with the process.
//! When the queue ends, the spool is synced before the publisher reports anything.
//!
//! A process that continues another one's spool assigns no seqs before Redis has reported how far
//! that one came, but waits for this at most [`FIRST_REPLY_WAIT`]; meanwhile the queue keeps
//! accepting events. The last status always waits for that reply, since its seal also counts what
//! the other process wrote.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::queue::event_queue::{Queue, QueueItem};
use crate::retransmit::buffer::RetransmitBuffer;
use crate::retransmit::send_window::SendWindow;

/// Longest time that an event stays out of the spool while the spool has room.
const MAX_UNSPOOLED: Duration = Duration::from_millis(50);

/// Longest wait for the first reply of Redis before seqs are assigned: Redis answers within
/// milliseconds, or is down.
const FIRST_REPLY_WAIT: Duration = Duration::from_secs(2);

/// The path from the queue to the retransmit buffer.
#[derive(Debug)]
pub(super) struct Intake {
    queue: Arc<Queue>,
    /// The queue is empty and stays empty.
    ended: bool,
    /// The last status has been taken: the run is over for this producer.
    is_final: bool,
    /// No batch is taken before this time, unless Redis replies first.
    hold_until: Option<Instant>,
    /// Nothing will be sent any more; the rest only goes into the spool.
    spools_rest: bool,
    /// When [`fill`](Self::fill) first left the open batch in the queue.
    open_since: Option<Instant>,
}

impl Intake {
    pub(super) fn new(queue: Arc<Queue>, window: &SendWindow) -> Self {
        let holds = window.awaits_first_reply();
        Self {
            queue,
            ended: false,
            is_final: false,
            hold_until: holds.then(|| Instant::now() + FIRST_REPLY_WAIT),
            spools_rest: false,
            open_since: None,
        }
    }

    /// Whether everything that will ever be published is in the buffer.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the last status is in the buffer.
    pub(super) const fn is_final(&self) -> bool {
        self.is_final
    }

    /// Moves batches into the buffer while it has room, the open one too if `take_open` is set.
    /// Returns whether an open batch stays in the queue.
    pub(super) fn fill(
        &mut self,
        buffer: &mut RetransmitBuffer,
        window: &SendWindow,
        mut take_open: bool,
    ) -> bool {
        if let Some(spool) = buffer.spool() {
            spool.sync_if_due();
        }
        if self.is_on_hold(window) {
            return false;
        }
        let is_overdue = |since: Instant| since + MAX_UNSPOOLED <= Instant::now();
        take_open |= buffer.spool().is_some() && self.open_since.is_some_and(is_overdue);
        while !self.ended {
            let has_room = buffer.has_room();
            self.queue.set_drops_oldest(!has_room);
            if !has_room {
                self.open_since = None;
                return false;
            }
            match self.queue.take(take_open) {
                QueueItem::Batch(batch) => {
                    self.open_since = None;
                    buffer.push(batch);
                    take_open = false;
                }
                QueueItem::Last if window.awaits_first_reply() && !self.spools_rest => {
                    return false;
                }
                QueueItem::Last => self.take_last(buffer),
                QueueItem::Open => {
                    self.open_since.get_or_insert_with(Instant::now);
                    return true;
                }
                QueueItem::Empty => return false,
                QueueItem::Ended => {
                    self.ended = true;
                    if let Some(spool) = buffer.spool() {
                        spool.sync_now();
                    }
                }
            }
        }
        false
    }

    /// Moves what is left in the queue into the spool, as far as it has room: nothing will be sent
    /// any more.
    pub(super) fn spool_rest(&mut self, buffer: &mut RetransmitBuffer, window: &SendWindow) {
        if buffer.spool().is_none() {
            return;
        }
        self.hold_until = None;
        self.spools_rest = true;
        while self.fill(buffer, window, true) {}
        if let Some(spool) = buffer.spool() {
            spool.sync_now();
        }
    }

    fn take_last(&mut self, buffer: &mut RetransmitBuffer) {
        if let Some(batch) = self.queue.take_last(buffer.seal()) {
            // Try the write even right after a failed one: this record fits on a disk that is full
            // except for its last block, and its seal tells the next process how much is missing.
            if let Some(spool) = buffer.spool() {
                spool.retry_now();
            }
            buffer.push(batch);
            self.is_final = true;
        }
    }

    fn is_on_hold(&mut self, window: &SendWindow) -> bool {
        let until = self.hold_until;
        let holds =
            window.awaits_first_reply() && until.is_some_and(|until| Instant::now() < until);
        if !holds {
            self.hold_until = None;
        }
        holds
    }

    /// When [`fill`](Self::fill) has work to do that no notification announces.
    pub(super) fn next_timer(&self, buffer: &mut RetransmitBuffer) -> Option<Instant> {
        let is_spooled = buffer.spool().is_some();
        let spool_at = self.open_since.filter(|_since| is_spooled);
        let spool_at = spool_at.map(|since| since + MAX_UNSPOOLED);
        let sync_at = buffer.sync_at().map(Instant::from_std);
        let timers = spool_at.into_iter().chain(sync_at).chain(self.hold_until);
        timers.min()
    }
}
