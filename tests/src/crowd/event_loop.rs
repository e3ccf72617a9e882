//! The event loop of a crowd: connects, reads, reconnects.
//!
//! Sockets are edge-triggered. One that filled the buffer is read again in the next round, after
//! all others. A shorter read means that the socket is empty, unless the server has closed it: then
//! only a read of 0 bytes is the end.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::handle::{CrowdPlan, CrowdState, Observations, READ_BYTES};
use super::response_parser::{MAX_CARRY_BYTES, ResponseError};
use super::viewer::{ReadSummary, Viewer};
use crate::stamp::now_ns;

/// Longest wait for events, so that the loop soon notices a stop or a due reconnect.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);

/// Pause of a viewer after a refused connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// The latencies of one in this many viewers are recorded, unless all are.
const SAMPLING_INTERVAL_VIEWERS: usize = 16;

struct Connection {
    viewer: Viewer,
    socket: Option<TcpStream>,
    /// The request is not written yet.
    connecting: bool,
    open: bool,
    /// The server has closed it; unread bytes may remain.
    closed: bool,
}

pub(crate) struct EventLoop {
    plan: CrowdPlan,
    shared: Arc<CrowdState>,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// Viewers that connect as soon as there is room.
    connect_queue: VecDeque<usize>,
    /// Viewers that reconnect later.
    reconnect_at: Vec<(Instant, usize)>,
    /// Viewers with more bytes to read.
    unread: Vec<usize>,
    /// How many viewers are connecting.
    connecting_count: usize,
}

impl EventLoop {
    pub(crate) fn new(plan: CrowdPlan, shared: Arc<CrowdState>) -> Self {
        let connection = |index| Connection {
            viewer: Viewer::new((plan.first)(index)),
            socket: None,
            connecting: false,
            open: false,
            closed: false,
        };
        Self {
            connections: (0..plan.viewers).map(connection).collect(),
            connect_queue: (0..plan.viewers).collect(),
            poll: Poll::new().expect("an epoll"),
            buffer: vec![0; MAX_CARRY_BYTES + READ_BYTES],
            reconnect_at: Vec::new(),
            unread: Vec::new(),
            connecting_count: 0,
            plan,
            shared,
        }
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            self.start_due_connections();
            let nap = if self.unread.is_empty() {
                POLL_TIMEOUT
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(nap)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    shared.observations().first_error = Some(format!("epoll: {error}"));
                    return;
                }
                _ => {}
            }
            let mut seen = shared.observations();
            for index in std::mem::take(&mut self.unread) {
                self.read(index, &mut seen);
            }
            for event in &events {
                let index = event.token().0;
                if self.connections[index].connecting {
                    self.send_request(index, &mut seen);
                }
                self.connections[index].closed |= event.is_read_closed();
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(index, &mut seen);
                }
            }
        }
    }

    fn start_due_connections(&mut self) {
        if !self.reconnect_at.is_empty() {
            let now = Instant::now();
            let (due, later) = self
                .reconnect_at
                .drain(..)
                .partition(|(when, _)| *when <= now);
            self.reconnect_at = later;
            let due: Vec<(Instant, usize)> = due;
            self.connect_queue
                .extend(due.into_iter().map(|(_, index)| index));
        }
        while self.connecting_count < self.plan.max_connecting {
            let Some(index) = self.connect_queue.pop_front() else {
                return;
            };
            if let Err(error) = self.connect(index) {
                let shared = Arc::clone(&self.shared);
                shared
                    .observations()
                    .first_error
                    .get_or_insert(format!("connect: {error}"));
                self.reconnect_at
                    .push((Instant::now() + REFUSED_PAUSE, index));
                return;
            }
        }
    }

    fn connect(&mut self, index: usize) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(self.plan.address)?;
        let registry = self.poll.registry();
        registry.register(
            &mut socket,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let connection = &mut self.connections[index];
        connection.viewer.begin_connection();
        connection.socket = Some(socket);
        connection.connecting = true;
        connection.closed = false;
        self.connecting_count += 1;
        Ok(())
    }

    /// Sends the request once the socket is writable.
    fn send_request(&mut self, index: usize, seen: &mut Observations) {
        let connection = &mut self.connections[index];
        let Some(socket) = &mut connection.socket else {
            return;
        };
        let request = (self.plan.request)(index, connection.viewer.cursor.as_deref());
        match socket.write(request.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            // A request is far shorter than the send buffer of a new socket.
            Ok(written) if written == request.len() => {
                connection.connecting = false;
                let registry = self.poll.registry();
                if let Err(error) = registry.reregister(socket, Token(index), Interest::READABLE) {
                    self.close(index, seen, Some(error.to_string()));
                }
            }
            Ok(_) => self.close(
                index,
                seen,
                Some("the request was written only in part".to_owned()),
            ),
            Err(error) => self.close(index, seen, Some(error.to_string())),
        }
    }

    fn read(&mut self, index: usize, seen: &mut Observations) {
        let connection = &mut self.connections[index];
        let Some(socket) = &mut connection.socket else {
            return;
        };
        let length = match socket.read(&mut self.buffer[MAX_CARRY_BYTES..]) {
            Ok(0) => return self.close(index, seen, None),
            Ok(length) => length,
            Err(error) => {
                let later = [ErrorKind::WouldBlock, ErrorKind::NotConnected];
                if error.kind() == ErrorKind::Interrupted {
                    self.unread.push(index);
                } else if !later.contains(&error.kind()) {
                    self.close(index, seen, Some(error.to_string()));
                }
                return;
            }
        };
        if length == READ_BYTES || connection.closed {
            self.unread.push(index);
        }
        let now = now_ns();
        let latencies = &mut seen.latencies;
        let mut count = |due: u64| latencies.record(now.saturating_sub(due));
        let counted = self.plan.record_all || index.is_multiple_of(SAMPLING_INTERVAL_VIEWERS);
        let each: Option<&mut dyn FnMut(u64)> = if counted { Some(&mut count) } else { None };
        let to = MAX_CARRY_BYTES + length;
        let summary = connection
            .viewer
            .process(&mut self.buffer, to, self.plan.reconnects, each);
        match summary {
            Ok(summary) => self.record(index, &summary, seen),
            Err(ResponseError::Malformed) => {
                self.close(index, seen, Some("the response is not HTTP".to_owned()));
            }
            Err(ResponseError::Status(status)) => {
                self.close(index, seen, Some(format!("answered {status}")));
            }
        }
    }

    fn record(&mut self, index: usize, summary: &ReadSummary, seen: &mut Observations) {
        let connection = &mut self.connections[index];
        seen.counts.messages += summary.messages;
        seen.counts.sequence_errors += summary.sequence_errors;
        seen.counts.gaps += summary.gaps;
        seen.counts.closing += summary.closing;
        if summary.sequence_errors > 0 {
            let next = connection.viewer.next;
            let what = format!("viewer {index}: sequence error before message {next}");
            seen.first_error.get_or_insert(what);
        }
        if summary.opened {
            connection.open = true;
            self.connecting_count -= 1;
            seen.counts.open += 1;
            seen.counts.opened += 1;
            let took = connection.viewer.connect_started.elapsed().as_nanos();
            seen.open_times
                .record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        if summary.messages > 0 {
            self.shared.last_message[index].store(connection.viewer.next - 1, Ordering::Relaxed);
        }
        if summary.over {
            self.close(index, seen, None);
        }
    }

    /// Closes a connection that the server ended, or that failed for `reason`.
    fn close(&mut self, index: usize, seen: &mut Observations, reason: Option<String>) {
        let connection = &mut self.connections[index];
        // Dropping the socket closes it; the kernel removes it from epoll.
        if connection.socket.take().is_none() {
            return;
        }
        let retry = connection.viewer.reset();
        connection.connecting = false;
        let pause = if std::mem::take(&mut connection.open) {
            seen.counts.open -= 1;
            seen.counts.ended += 1;
            retry
        } else {
            self.connecting_count -= 1;
            seen.counts.refused += 1;
            REFUSED_PAUSE
        };
        if let Some(reason) = reason {
            seen.first_error
                .get_or_insert(format!("viewer {index}: {reason}"));
        }
        if self.plan.reconnects {
            self.reconnect_at.push((Instant::now() + pause, index));
        }
    }
}
