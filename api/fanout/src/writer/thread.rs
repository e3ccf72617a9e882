//! A writer thread: it writes to its share of the viewers.
//!
//! Data: the connections, and for each run that they watch the keys of its connections. Time: the
//! thread sleeps in `epoll` until a socket takes more, a viewer comes or goes, or a run changes.
//! Every [`TICK_INTERVAL`] it looks for connections that need a keep-alive or have to close. It
//! never waits for a socket: one that takes nothing is passed over.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use runcast_access::open_streams::Revocation;
use slab::Slab;
use tracing::debug;
use uuid::Uuid;

use super::connection::{ViewerConnection, WriteOutcome};
use super::mailbox::{Mailbox, Messages, NewConnection, WAKER_TOKEN};
use super::metrics::{CloseReason, Metrics};
use crate::memory::{SHED_ONE_OF_VIEWERS, SHED_REASON, ShedSignal};
use crate::sse::DRAIN_REASON;
use crate::tail::TailListener;
use crate::viewer::SelectionCache;

/// The connections of a run are served no more often than this: what comes in between is one write
/// for each. It is as long as a round over thousands of connections takes, and far below what
/// people notice.
const FLUSH_INTERVAL: Duration = Duration::from_millis(4);

/// How long viewers may take for what is still to be sent when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// How often all connections are checked.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Socket events that one poll returns.
const MAX_POLL_EVENTS: usize = 1024;

/// One thread and its viewers.
#[derive(Debug)]
pub(super) struct WriterThread {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    shedding: ShedSignal,
    stall_timeout: Duration,
    metrics: Metrics,
    /// Their keys are also their `epoll` tokens.
    connections: Slab<ViewerConnection>,
    groups: HashMap<Uuid, RunGroup>,
    /// Runs that have changed and are not served yet.
    due: Vec<Uuid>,
    /// Connections that had their share of a round and have more to send.
    unfinished: Vec<usize>,
    ticked_at: Instant,
    /// Set once the server drains.
    drain_deadline: Option<Instant>,
    /// Bytes sent that the metrics do not count yet.
    sent_bytes: u64,
}

/// The connections of one run.
#[derive(Debug)]
struct RunGroup {
    keys: Vec<usize>,
    /// When they may be served again.
    next_at: Instant,
    /// The run is in `WriterThread::due`.
    is_due: bool,
}

impl WriterThread {
    pub(super) fn new(
        poll: Poll,
        mailbox: Arc<Mailbox>,
        shedding: ShedSignal,
        stall_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        Self {
            poll,
            mailbox,
            shedding,
            stall_timeout,
            metrics,
            connections: Slab::new(),
            groups: HashMap::new(),
            due: Vec::new(),
            unfinished: Vec::new(),
            ticked_at: Instant::now(),
            drain_deadline: None,
            sent_bytes: 0,
        }
    }

    /// Serves its viewers until the server drains and all of them are gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(MAX_POLL_EVENTS);
        loop {
            let timeout = self.poll_timeout(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // Sockets that take more again, and clients that have left.
            for event in &events {
                if event.token() != WAKER_TOKEN {
                    self.on_socket_event(event);
                }
            }
            // What other threads say.
            let Messages {
                new_connections,
                changed,
                has_revocations,
                drains,
            } = self.mailbox.take_all();
            for connection in new_connections {
                self.add(connection);
            }
            for run in changed {
                self.mark_due(run);
            }
            if has_revocations {
                self.close_revoked();
            }
            // Changed runs first, then connections that need another share.
            self.serve_due();
            self.serve_unfinished();
            self.tick(drains);
            self.metrics
                .bytes
                .inc_by(std::mem::take(&mut self.sent_bytes));
            if self.is_done() {
                return Ok(());
            }
        }
    }

    /// How long the thread may sleep, if no event wakes it.
    fn poll_timeout(&self, now: Instant) -> Duration {
        if !self.unfinished.is_empty() {
            return Duration::ZERO;
        }
        let due = self.due.iter().filter_map(|run| self.groups.get(run));
        let times = due
            .map(|group| group.next_at)
            .chain([self.ticked_at + TICK_INTERVAL]);
        let first = times.min().unwrap_or(now);
        first.saturating_duration_since(now)
    }

    fn is_done(&self) -> bool {
        self.drain_deadline
            .is_some_and(|deadline| self.connections.is_empty() || deadline <= Instant::now())
    }

    fn add(&mut self, new: NewConnection) {
        self.metrics.viewers.inc();
        let mut connection = ViewerConnection::new(new);
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut connection.socket, Token(key), interest) {
            debug!(%error, "cannot watch a viewer's socket; closing it");
            self.metrics.count_closed(CloseReason::Failed);
            return;
        }
        let run = connection.viewer.run();
        let group = self.groups.entry(run).or_insert_with(|| {
            connection
                .viewer
                .watch()
                .attach(Arc::clone(&self.mailbox) as Arc<dyn TailListener>);
            RunGroup {
                keys: Vec::new(),
                next_at: Instant::now(),
                is_due: false,
            }
        });
        connection.index_in_group = group.keys.len();
        group.keys.push(key);
        entry.insert(connection);
        if self.drain_deadline.is_some() {
            self.close(key, DRAIN_REASON, CloseReason::Drained);
        } else if let Some(revocation) = self.revocation(key) {
            self.close(key, revocation.reason(), CloseReason::Revoked);
        } else {
            self.serve(key, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn on_socket_event(&mut self, event: &Event) {
        let key = event.token().0;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if event.is_error() || (event.is_readable() && connection.discard_input()) {
            return self.remove(key, CloseReason::Left);
        }
        if event.is_writable() && connection.is_stuck() {
            self.serve(key, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn mark_due(&mut self, run: Uuid) {
        if let Some(group) = self.groups.get_mut(&run)
            && !std::mem::replace(&mut group.is_due, true)
        {
            self.due.push(run);
        }
    }

    /// Serves the runs that have changed, except those that were served just now.
    fn serve_due(&mut self) {
        let now = Instant::now();
        let mut later = Vec::new();
        for run in std::mem::take(&mut self.due) {
            let Some(group) = self.groups.get_mut(&run) else {
                continue;
            };
            if group.next_at > now {
                later.push(run);
                continue;
            }
            group.is_due = false;
            group.next_at = now + FLUSH_INTERVAL;
            let mut cache = SelectionCache::default();
            // Backward, since a connection that closes is replaced by the last one of the group.
            for index in (0..group.keys.len()).rev() {
                let key = self
                    .groups
                    .get(&run)
                    .and_then(|group| group.keys.get(index));
                let Some(&key) = key else {
                    continue;
                };
                if self.connections.get(key).is_some_and(|one| !one.is_stuck()) {
                    self.serve(key, &mut cache, now);
                }
            }
        }
        self.due.append(&mut later);
    }

    fn serve_unfinished(&mut self) {
        for key in std::mem::take(&mut self.unfinished) {
            self.serve(key, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn serve(&mut self, key: usize, cache: &mut SelectionCache, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.write(cache, now, &mut self.sent_bytes) {
            WriteOutcome::Done => {}
            WriteOutcome::HasMore => self.unfinished.push(key),
            WriteOutcome::Closed(reason) => self.remove(key, reason),
        }
    }

    fn tick(&mut self, drains: bool) {
        let now = Instant::now();
        if drains && self.drain_deadline.is_none() {
            self.drain_deadline = Some(now + DRAIN_TIMEOUT);
            for key in self.keys() {
                self.close(key, DRAIN_REASON, CloseReason::Drained);
            }
        }
        if now.saturating_duration_since(self.ticked_at) < TICK_INTERVAL {
            return;
        }
        self.ticked_at = now;
        let mut closed = Vec::new();
        for (key, connection) in &mut self.connections {
            let outcome = connection.tick(now, self.stall_timeout, &mut self.sent_bytes);
            if let WriteOutcome::Closed(reason) = outcome {
                closed.push((key, reason));
            }
        }
        for (key, reason) in closed {
            self.remove(key, reason);
        }
        if self.shedding.round_has_begun() {
            self.shed();
        }
    }

    /// Closes the connections that are furthest behind; random ones where all are equally far.
    fn shed(&mut self) {
        let lag = |key: &usize| {
            let connection = self.connections.get(*key);
            let lag = connection.map(|one| (one.is_stuck(), one.viewer.lag()));
            (lag, rand::random::<u32>())
        };
        let mut keys = self.keys();
        keys.sort_by_cached_key(|key| std::cmp::Reverse(lag(key)));
        keys.truncate(keys.len().div_ceil(SHED_ONE_OF_VIEWERS as usize));
        for key in keys {
            self.close(key, SHED_REASON, CloseReason::Memory);
        }
    }

    /// Closes the viewers whose credential has ended.
    fn close_revoked(&mut self) {
        for key in self.keys() {
            if let Some(revocation) = self.revocation(key) {
                self.close(key, revocation.reason(), CloseReason::Revoked);
            }
        }
    }

    fn revocation(&self, key: usize) -> Option<Revocation> {
        self.connections
            .get(key)?
            .viewer
            .registration()?
            .revocation()
    }

    fn keys(&self) -> Vec<usize> {
        self.connections.iter().map(|(key, _)| key).collect()
    }

    /// Sends a last frame, then closes the connection.
    fn close(&mut self, key: usize, reason: &str, close_reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let frame = connection.viewer.closing(reason);
        connection.close_after(&frame, close_reason);
        self.serve(key, &mut SelectionCache::default(), Instant::now());
        // Where memory or permission is gone, a viewer that takes nothing is cut off at once.
        if matches!(close_reason, CloseReason::Memory | CloseReason::Revoked)
            && self.connections.contains(key)
        {
            self.remove(key, close_reason);
        }
    }

    fn remove(&mut self, key: usize, reason: CloseReason) {
        let Some(mut connection) = self.connections.try_remove(key) else {
            return;
        };
        if let Err(error) = self.poll.registry().deregister(&mut connection.socket) {
            debug!(%error, "cannot deregister a viewer's socket");
        }
        self.metrics.count_closed(reason);
        let run = connection.viewer.run();
        if let Some(group) = self.groups.get_mut(&run) {
            let index = connection.index_in_group;
            group.keys.swap_remove(index);
            if let Some(moved) = group.keys.get(index).copied()
                && let Some(moved) = self.connections.get_mut(moved)
            {
                moved.index_in_group = index;
            }
            if group.keys.is_empty() {
                self.groups.remove(&run);
                connection
                    .viewer
                    .watch()
                    .detach(&(Arc::clone(&self.mailbox) as Arc<dyn TailListener>));
            }
        }
    }
}
