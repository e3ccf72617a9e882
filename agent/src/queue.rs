//! The bounded queue between those who publish and the one task that sends.
//!
//! Publishing writes the event line straight into the batch that is open, under a short lock: no
//! allocation per event, no channel, and the sender is woken only when a batch is opened or closed.
//! A batch gets its seqs when it is taken out, in order; so what is dropped before has never had any,
//! and what has a seq is never dropped: seqs stay dense, and the seal, which is kept behind the
//! queue, covers exactly what is sent.
//!
//! Data: closed batches, oldest first, and the open one. Bounds: [`MAX_EVENTS`] and [`MAX_BYTES`]
//! of what waits, exceeded by at most one event; then an async publisher waits and a `try_` form
//! says so. Except while the backlog behind is at its cap: then an event of a kind that may be
//! dropped takes the place of the oldest such ones, a batch's worth at a time, which a `gap` event in
//! front of what is left of their batch counts. There is no time limit here: a caller that must go on bounds its own wait.

use std::sync::{Mutex, MutexGuard, PoisonError};

use runcast_common::protocol::event::{self, InvalidEvent, Kind, StatusChange};
use runcast_common::protocol::seal::Seal;
use serde::Serialize;
use tokio::sync::Notify;

mod inner;
mod waiting;

use self::inner::Inner;
pub(crate) use self::waiting::gap_line;
use crate::batch::Batch;
use crate::outcome::{PublishError, Stopped};

/// Events that may wait: an eighth of a second of the fastest stream, enough to ride out a slow
/// reply without stopping the publisher.
pub(crate) const MAX_EVENTS: usize = 64 * 1024;

/// Bytes that may wait: 32 full batches, so that large events do not hold what small ones never
/// could.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Lines that wait to be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// A batch was opened or closed, or the queue was.
    arrived: Notify,
    /// Something was taken out, or may be dropped, or nothing will ever be taken again.
    room: Notify,
}

/// What the sender finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A batch to keep and send.
    Batch(Batch),
    /// The last status, to be taken by [`Queue::take_last`] once the seal is known.
    Last,
    /// Only an open batch that was not asked for.
    Partial,
    /// Nothing at the moment.
    Empty,
    /// Nothing, and nothing will follow.
    Ended,
}

impl Queue {
    /// An empty queue for one variation, whose next event follows the one of seq `taken`.
    pub(crate) fn new(variation: u16, taken: u64, droppable: &[Kind]) -> Self {
        Self {
            inner: Mutex::new(Inner::new(variation, taken, droppable)),
            arrived: Notify::new(),
            room: Notify::new(),
        }
    }

    /// No state here is left half-changed by a panic, see `open_bytes`; so poison means nothing.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one event, or says why not; gives its seq.
    pub(crate) fn try_push(
        &self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        let mut inner = self.lock();
        inner.check_open()?;
        let is_full = inner.is_full();
        if !inner.has_room_for(kind) {
            return Err(PublishError::Full);
        }
        if inner.write(kind, payload)? {
            self.arrived.notify_one();
        }
        if is_full {
            inner.drop_oldest();
        }
        Ok(inner.newest())
    }

    /// Writes one event, as soon as there is room for it.
    pub(crate) async fn push_when_room(
        &self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        loop {
            match self.try_push(kind, payload) {
                Err(PublishError::Full) => self.room_for(kind).await,
                done => return done,
            }
        }
    }

    /// Waits until an event of this kind would be taken, or refused for good.
    pub(crate) async fn room_for(&self, kind: Kind) {
        loop {
            // Interest is registered before the look, so that no wake-up is missed.
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let inner = self.lock();
                if inner.check_open().is_err() || inner.has_room_for(kind) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Counts what its publisher gave up, in a gap event behind everything that was published before.
    pub(crate) fn note_lost(&self, events: u64, bytes: u64) {
        let mut inner = self.lock();
        if events > 0 && inner.check_open().is_ok() {
            inner.note_lost(events, bytes);
            drop(inner);
            self.arrived.notify_one();
        }
    }

    /// Ends the queue, with one last status before it, which carries the seal if it is final. It is
    /// taken in even where the queue is full: it is the last one.
    pub(crate) fn end(&self, last: Option<StatusChange>) -> Result<(), PublishError> {
        let mut inner = self.lock();
        if let Some(change) = last {
            inner.check_open()?;
            // Whether it can be written must be known now; no seal is longer than this one.
            let longest = Seal {
                events: u64::MAX,
                bytes: u64::MAX,
                ..Seal::default()
            };
            write_last(inner.variation, change.clone(), longest)?;
            inner.last = Some(change);
        }
        inner.ended = true;
        drop(inner);
        self.arrived.notify_one();
        self.room.notify_waiters();
        Ok(())
    }

    /// Takes the oldest batch; the open one only if `partial` says so.
    pub(crate) fn take(&self, partial: bool) -> Taken {
        let mut inner = self.lock();
        if inner.closed.is_empty() && !inner.open.is_empty() {
            if !partial {
                return Taken::Partial;
            }
            inner.close_batch();
        }
        match inner.closed.pop_front() {
            Some(waiting) => {
                inner.events -= usize::try_from(waiting.count).unwrap_or(usize::MAX);
                inner.bytes -= waiting.lines.len();
                inner.gaps -= usize::from(waiting.dropped.events > 0);
                let (count, lines) = waiting.into_lines(inner.variation);
                let first = inner.taken + 1;
                inner.taken += count;
                drop(inner);
                self.room.notify_waiters();
                Taken::Batch(Batch::new(first, count, lines))
            }
            None if inner.last.is_some() => Taken::Last,
            None if inner.ended => Taken::Ended,
            None => Taken::Empty,
        }
    }

    /// Takes the last status, with the seal over all events before it.
    pub(crate) fn take_last(&self, seal: Seal) -> Option<Batch> {
        let mut inner = self.lock();
        let change = inner.last.take()?;
        inner.taken += 1;
        match write_last(inner.variation, change, seal) {
            Ok(line) => Some(Batch::new(inner.taken, 1, line)),
            Err(error) => {
                tracing::error!(%error, "the last status could not be written");
                inner.taken -= 1;
                None
            }
        }
    }

    /// Waits until a batch was opened or closed, or the queue was, since the last call.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// True if nothing more can be published.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The backlog takes nothing more, or does so again.
    pub(crate) fn set_capped(&self, is_capped: bool) {
        let mut inner = self.lock();
        let now = is_capped && !inner.is_capped;
        inner.is_capped = is_capped;
        drop(inner);
        if now {
            self.room.notify_waiters();
        }
    }

    /// What was taken out has got larger seqs than it was given here.
    pub(crate) fn renumber(&self, taken: u64) {
        self.lock().taken = taken;
    }

    /// Nothing will be taken out any more: every later call gets `why`. The first reason stays.
    pub(crate) fn stop(&self, why: Stopped) {
        let mut inner = self.lock();
        inner.stopped.get_or_insert(why);
        drop(inner);
        self.room.notify_waiters();
    }

    /// Why nothing is taken out any more, if so.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.lock().stopped.clone()
    }

    /// When output or log was last published, in Unix milliseconds; none if never.
    pub(crate) fn shown_at(&self) -> Option<u64> {
        self.lock().shown_at
    }

    /// Seq of the newest event, 0 before the first. It grows with every event, and shrinks where
    /// waiting events are dropped.
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

#[cfg(test)]
mod tests;
