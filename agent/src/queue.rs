//! The bounded queue between those who publish and the one task that sends.
//!
//! Publishing writes the event line straight into the batch that is open, under a short lock: no
//! allocation per event, no channel, and the sender is woken only when a batch is opened or closed.
//! The seq and the running [`Seal`] are given under the same lock, so both agree with the order of
//! the lines.
//!
//! Data: closed batches, oldest first, and the open one. Bounds: [`MAX_EVENTS`] and [`MAX_BYTES`]
//! of what waits, exceeded by at most one event; then an async publisher waits and a `try_` form
//! says so. There is no time limit here: a caller that must go on bounds its own wait.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runcast_common::event::{self, InvalidEvent, Kind, StatusChange};
use runcast_common::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS};
use runcast_common::seal::Seal;
use serde::Serialize;
use tokio::sync::Notify;

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
    /// Something was taken out, or nothing will ever be again.
    room: Notify,
}

#[derive(Debug)]
struct Inner {
    variation: u16,
    closed: VecDeque<Batch>,
    /// Lines of the open batch; what lies behind `open_bytes` is the rest of a line whose payload
    /// panicked while it was written.
    open: Vec<u8>,
    open_bytes: usize,
    open_count: u64,
    /// Events and bytes in all batches here.
    events: usize,
    bytes: usize,
    /// Seq of the newest event, 0 before the first.
    last_seq: u64,
    seal: Seal,
    ended: bool,
    stopped: Option<Stopped>,
}

/// What the sender finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A batch to keep and send.
    Batch(Batch),
    /// Only an open batch that was not asked for.
    Partial,
    /// Nothing at the moment.
    Empty,
    /// Nothing, and nothing will follow.
    Ended,
}

impl Queue {
    /// An empty queue for one variation.
    pub(crate) fn new(variation: u16) -> Self {
        Self {
            inner: Mutex::new(Inner {
                variation,
                closed: VecDeque::new(),
                open: Vec::new(),
                open_bytes: 0,
                open_count: 0,
                events: 0,
                bytes: 0,
                last_seq: 0,
                seal: Seal::default(),
                ended: false,
                stopped: None,
            }),
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
        if inner.events >= MAX_EVENTS || inner.bytes >= MAX_BYTES {
            return Err(PublishError::Full);
        }
        self.push(&mut inner, kind, payload)
    }

    /// Writes one event, as soon as there is room for it.
    pub(crate) async fn push_when_room(
        &self,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        loop {
            match self.try_push(kind, payload) {
                Err(PublishError::Full) => {}
                done => return done,
            }
            // Interest is registered before the second look, so that no wake-up is missed.
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            match self.try_push(kind, payload) {
                Err(PublishError::Full) => room.await,
                done => return done,
            }
        }
    }

    /// Ends the queue, with one last status before it, which carries the seal if it is final. It is
    /// taken in even where the queue is full: it is the last one.
    pub(crate) fn end(&self, last: Option<StatusChange>) -> Result<(), PublishError> {
        let mut inner = self.lock();
        if let Some(mut change) = last {
            inner.check_open()?;
            if change.status.is_final() {
                change.seal = Some(inner.seal);
            }
            self.push(&mut inner, Kind::Status, &change)?;
        }
        inner.ended = true;
        drop(inner);
        self.arrived.notify_one();
        self.room.notify_waiters();
        Ok(())
    }

    fn push(
        &self,
        inner: &mut Inner,
        kind: Kind,
        payload: &impl Serialize,
    ) -> Result<u64, PublishError> {
        if inner.write(kind, payload)? {
            self.arrived.notify_one();
        }
        Ok(inner.last_seq)
    }

    /// Takes the oldest batch; the open one only if `partial` says so.
    pub(crate) fn take(&self, partial: bool) -> Taken {
        let mut inner = self.lock();
        if inner.closed.is_empty() && inner.open_count > 0 {
            if !partial {
                return Taken::Partial;
            }
            inner.close_batch();
        }
        match inner.closed.pop_front() {
            Some(batch) => {
                inner.events -= usize::try_from(batch.count).unwrap_or(usize::MAX);
                inner.bytes -= batch.body.len();
                drop(inner);
                self.room.notify_waiters();
                Taken::Batch(batch)
            }
            None if inner.ended => Taken::Ended,
            None => Taken::Empty,
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

    /// Seq of the newest event, 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        self.lock().last_seq
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), PublishError> {
        match &self.stopped {
            Some(why) => Err(PublishError::Stopped(why.clone())),
            None if self.ended => Err(PublishError::Closed),
            None => Ok(()),
        }
    }

    /// Writes a line into the open batch; true if the sender must hear of it.
    fn write(&mut self, kind: Kind, payload: &impl Serialize) -> Result<bool, InvalidEvent> {
        let start = self.open_bytes;
        self.open.truncate(start);
        event::write_line(
            &mut self.open,
            kind,
            self.variation,
            event::now_ms(),
            payload,
        )?;
        let line = &self.open[start..];
        self.seal.add(&line[..line.len() - 1]);
        self.events += 1;
        self.bytes += line.len();
        let mut tell = self.open_count == 0;
        if start > 0 && self.open.len() > MAX_ENTRY_BYTES {
            let line = self.open.split_off(start);
            self.close_batch();
            self.open = line;
            tell = true;
        }
        self.last_seq += 1;
        self.open_count += 1;
        self.open_bytes = self.open.len();
        if self.open_count >= MAX_ENTRY_EVENTS as u64 || self.open_bytes >= MAX_ENTRY_BYTES {
            self.close_batch();
            tell = true;
        }
        Ok(tell)
    }

    fn close_batch(&mut self) {
        // The next batch is likely as large as this one.
        let next = Vec::with_capacity(self.open.len());
        let lines = std::mem::replace(&mut self.open, next);
        let first = self.last_seq + 1 - self.open_count;
        self.closed
            .push_back(Batch::new(first, self.open_count, lines));
        (self.open_bytes, self.open_count) = (0, 0);
    }
}

#[cfg(test)]
mod tests;
