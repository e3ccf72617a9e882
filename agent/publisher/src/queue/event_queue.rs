//! The event queue: batches that wait to be taken by the sending task.
//!
//! Publishing writes the event line directly into the open batch, under a short lock: no allocation
//! per event, no channel, and the sending task is notified only when a batch is opened or closed. A
//! batch gets its seqs when it is taken, in order. So an event that is dropped before never had a
//! seq, and an event with a seq is never dropped: seqs stay dense, and the seal, which is computed
//! behind the queue, covers exactly what is sent.
//!
//! Data: closed batches, oldest first, and the open one. Bounds: [`MAX_EVENTS`] and [`MAX_BYTES`],
//! exceeded by at most one event; then async callers wait and `try_` calls return `Full`. The
//! exception: while the retransmit buffer is full, an event of a droppable kind replaces the oldest
//! droppable events, a batch's worth at a time. A `gap` event in front of what is left of their
//! batch counts them. The queue has no time limit; callers bound their own waits.
//!
//! [`MAX_EVENTS`]: super::state::MAX_EVENTS
//! [`MAX_BYTES`]: super::state::MAX_BYTES

use std::sync::{Mutex, MutexGuard, PoisonError};

use runcast_common::protocol::event::{self, InvalidEvent, Kind, StatusChange};
use runcast_common::protocol::seal::Seal;
use serde::Serialize;
use tokio::sync::Notify;

use super::batch::Batch;
use super::state::QueueState;
use crate::error::{PublishError, Stopped};

/// Events that wait to be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    /// A batch was opened or closed, or the queue has ended.
    changed: Notify,
    /// A batch was taken, events may be dropped now, or nothing will be taken again.
    room: Notify,
}

/// What [`Queue::take`] returns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QueueItem {
    Batch(Batch),
    /// The last status, to be taken with [`Queue::take_last`] once the seal is known.
    Last,
    /// Only the open batch, which the caller did not ask for.
    Open,
    /// Nothing at the moment.
    Empty,
    /// Nothing, and nothing will follow.
    Ended,
}

impl Queue {
    /// An empty queue for one variation. Its first event gets the seq after `last_taken`.
    pub(crate) fn new(variation: u16, last_taken: u64, droppable: &[Kind]) -> Self {
        Self {
            state: Mutex::new(QueueState::new(variation, last_taken, droppable)),
            changed: Notify::new(),
            room: Notify::new(),
        }
    }

    /// A poisoned lock is fine: no panic leaves the state half changed, see `open_bytes`.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event and returns its seq.
    pub(crate) fn try_push(
        &self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        let mut state = self.lock();
        state.check_open()?;
        let is_full = state.is_full();
        if !state.has_room_for(kind) {
            return Err(PublishError::Full);
        }
        if state.write(kind, payload)? {
            self.changed.notify_one();
        }
        if is_full {
            state.drop_oldest();
        }
        Ok(state.newest())
    }

    /// Adds an event as soon as there is room for it, and returns its seq.
    pub(crate) async fn push_when_room(
        &self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        loop {
            match self.try_push(kind, payload) {
                Err(PublishError::Full) => self.wait_for_room(kind).await,
                done => return done,
            }
        }
    }

    /// Waits until an event of this kind has room, or the queue accepts nothing any more.
    pub(crate) async fn wait_for_room(&self, kind: Kind) {
        loop {
            // Registered before the check, so that no notification is missed.
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let state = self.lock();
                if state.check_open().is_err() || state.has_room_for(kind) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Counts events that the caller could not publish, in a `gap` event behind everything that was
    /// published before.
    pub(crate) fn note_lost(&self, events: u64, bytes: u64) {
        let mut state = self.lock();
        if events > 0 && state.check_open().is_ok() {
            state.note_lost(events, bytes);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends the queue, after one last status that carries the seal if it is final. The queue
    /// accepts it even when it is full.
    pub(crate) fn end(&self, last: Option<StatusChange>) -> Result<(), PublishError> {
        let mut state = self.lock();
        if let Some(change) = last {
            state.check_open()?;
            // Rejects a status that is too large now rather than later: no seal is longer than
            // this.
            let longest = Seal {
                events: u64::MAX,
                bytes: u64::MAX,
                ..Seal::default()
            };
            write_last(state.variation, change.clone(), longest)?;
            state.last = Some(change);
        }
        state.ended = true;
        drop(state);
        self.changed.notify_one();
        self.room.notify_waiters();
        Ok(())
    }

    /// Takes the oldest batch; the open one only if `take_open` is set.
    pub(crate) fn take(&self, take_open: bool) -> QueueItem {
        let mut state = self.lock();
        if state.closed.is_empty() && !state.open.is_empty() {
            if !take_open {
                return QueueItem::Open;
            }
            state.close_batch();
        }
        match state.closed.pop_front() {
            Some(pending) => {
                state.events -= usize::try_from(pending.count).unwrap_or(usize::MAX);
                state.bytes -= pending.lines.len();
                state.gaps -= usize::from(pending.dropped.events > 0);
                let (count, lines) = pending.into_lines(state.variation);
                let first = state.last_taken + 1;
                state.last_taken += count;
                drop(state);
                self.room.notify_waiters();
                QueueItem::Batch(Batch::new(first, count, lines))
            }
            None if state.last.is_some() => QueueItem::Last,
            None if state.ended => QueueItem::Ended,
            None => QueueItem::Empty,
        }
    }

    /// Takes the last status, with the seal over all events before it.
    pub(crate) fn take_last(&self, seal: Seal) -> Option<Batch> {
        let mut state = self.lock();
        let change = state.last.take()?;
        state.last_taken += 1;
        match write_last(state.variation, change, seal) {
            Ok(line) => Some(Batch::new(state.last_taken, 1, line)),
            Err(error) => {
                tracing::error!(%error, "the last status could not be written");
                state.last_taken -= 1;
                None
            }
        }
    }

    /// Waits until a batch is opened or closed, or the queue ends, since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether nothing more can be published.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Sets whether a full queue drops its oldest droppable events: while the buffer has no room.
    pub(crate) fn set_drops_oldest(&self, drops_oldest: bool) {
        let mut state = self.lock();
        let is_new = drops_oldest && !state.drops_oldest;
        state.drops_oldest = drops_oldest;
        drop(state);
        if is_new {
            self.room.notify_waiters();
        }
    }

    /// Continues behind `last_taken`: batches that were taken got larger seqs than this queue gave
    /// them.
    pub(crate) fn renumber(&self, last_taken: u64) {
        self.lock().last_taken = last_taken;
    }

    /// Makes every later call fail with `reason`. The first reason stays.
    pub(crate) fn stop(&self, reason: Stopped) {
        let mut state = self.lock();
        state.stopped.get_or_insert(reason);
        drop(state);
        self.room.notify_waiters();
    }

    /// The reason given to [`stop`](Self::stop).
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.lock().stopped.clone()
    }

    /// When output or a log line was last published, in Unix milliseconds; none if never.
    pub(crate) fn last_text_at(&self) -> Option<u64> {
        self.lock().last_text_at
    }

    /// Seq of the newest event, 0 before the first. It shrinks when waiting events are dropped.
    pub(crate) fn last_seq(&self) -> u64 {
        self.lock().newest()
    }
}

fn write_last(
    variation: u16,
    mut change: StatusChange,
    seal: Seal,
) -> Result<Vec<u8>, InvalidEvent> {
    if change.status.is_final() {
        change.seal = Some(seal);
    }
    let mut line = Vec::new();
    event::write_line(&mut line, Kind::Status, variation, event::now_ms(), &change)?;
    Ok(line)
}
