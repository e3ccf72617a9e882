//! The loop of a crowd: connects, reads, comes back.
//!
//! Sockets are edge-triggered: one that filled the buffer is read again in the next turn, after all others had theirs; a
//! shorter read says that the socket is empty, unless the server has closed it: then only a read of nothing does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::viewer::{Taken, Viewer};
use super::wire::{Broken, LONGEST};
use super::{Plan, READ_BYTES, Seen, Shared};
use crate::mark::now_ns;

/// How long the loop sleeps at most: so soon it sees that it is to end, or that somebody comes back.
const NAP: Duration = Duration::from_millis(5);

/// What a viewer waits after a connection that was refused.
const REFUSED: Duration = Duration::from_millis(50);

/// One of so many viewers has its durations counted, unless all have.
const SAMPLE: usize = 16;

struct Seat {
    viewer: Viewer,
    socket: Option<TcpStream>,
    /// The request stands to be written.
    connecting: bool,
    open: bool,
    /// The server has closed it; there may be something left to read.
    closed: bool,
}

pub(crate) struct Turn {
    plan: Plan,
    shared: Arc<Shared>,
    poll: Poll,
    seats: Vec<Seat>,
    buffer: Vec<u8>,
    /// Who is to connect as soon as there is room.
    waiting: VecDeque<usize>,
    /// Who is to connect later.
    away: Vec<(Instant, usize)>,
    /// Who has more to read.
    unread: Vec<usize>,
    /// How many connect.
    underway: usize,
}

impl Turn {
    pub(crate) fn new(plan: Plan, shared: Arc<Shared>) -> Self {
        let seat = |index| Seat {
            viewer: Viewer::new((plan.first)(index)),
            socket: None,
            connecting: false,
            open: false,
            closed: false,
        };
        Self {
            seats: (0..plan.viewers).map(seat).collect(),
            waiting: (0..plan.viewers).collect(),
            poll: Poll::new().expect("an epoll"),
            buffer: vec![0; LONGEST + READ_BYTES],
            away: Vec::new(),
            unread: Vec::new(),
            underway: 0,
            plan,
            shared,
        }
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            self.connect_those_due();
            let nap = if self.unread.is_empty() {
                NAP
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(nap)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    shared.seen().trouble = Some(format!("epoll: {error}"));
                    return;
                }
                _ => {}
            }
            let mut seen = shared.seen();
            for index in std::mem::take(&mut self.unread) {
                self.read(index, &mut seen);
            }
            for event in &events {
                let index = event.token().0;
                if self.seats[index].connecting {
                    self.ask(index, &mut seen);
                }
                self.seats[index].closed |= event.is_read_closed();
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(index, &mut seen);
                }
            }
        }
    }

    fn connect_those_due(&mut self) {
        if !self.away.is_empty() {
            let now = Instant::now();
            let (due, later) = self.away.drain(..).partition(|(when, _)| *when <= now);
            self.away = later;
            let due: Vec<(Instant, usize)> = due;
            self.waiting.extend(due.into_iter().map(|(_, index)| index));
        }
        while self.underway < self.plan.at_once {
            let Some(index) = self.waiting.pop_front() else {
                return;
            };
            if let Err(error) = self.connect(index) {
                let shared = Arc::clone(&self.shared);
                shared
                    .seen()
                    .trouble
                    .get_or_insert(format!("connect: {error}"));
                self.away.push((Instant::now() + REFUSED, index));
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
        let seat = &mut self.seats[index];
        seat.viewer.connect();
        seat.socket = Some(socket);
        seat.connecting = true;
        seat.closed = false;
        self.underway += 1;
        Ok(())
    }

    /// Sends the request, once the socket can be written.
    fn ask(&mut self, index: usize, seen: &mut Seen) {
        let seat = &mut self.seats[index];
        let Some(socket) = &mut seat.socket else {
            return;
        };
        let request = (self.plan.request)(index, seat.viewer.cursor.as_deref());
        match socket.write(request.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            // A request is far shorter than the buffer of a new socket.
            Ok(written) if written == request.len() => {
                seat.connecting = false;
                let registry = self.poll.registry();
                if let Err(error) = registry.reregister(socket, Token(index), Interest::READABLE) {
                    self.lose(index, seen, Some(error.to_string()));
                }
            }
            Ok(_) => self.lose(index, seen, Some("a request was cut".to_owned())),
            Err(error) => self.lose(index, seen, Some(error.to_string())),
        }
    }

    fn read(&mut self, index: usize, seen: &mut Seen) {
        let seat = &mut self.seats[index];
        let Some(socket) = &mut seat.socket else {
            return;
        };
        let length = match socket.read(&mut self.buffer[LONGEST..]) {
            Ok(0) => return self.lose(index, seen, None),
            Ok(length) => length,
            Err(error) => {
                let later = [ErrorKind::WouldBlock, ErrorKind::NotConnected];
                if error.kind() == ErrorKind::Interrupted {
                    self.unread.push(index);
                } else if !later.contains(&error.kind()) {
                    self.lose(index, seen, Some(error.to_string()));
                }
                return;
            }
        };
        if length == READ_BYTES || seat.closed {
            self.unread.push(index);
        }
        let now = now_ns();
        let durations = &mut seen.durations;
        let mut count = |due: u64| durations.record(now.saturating_sub(due));
        let counted = self.plan.every_duration || index.is_multiple_of(SAMPLE);
        let each: Option<&mut dyn FnMut(u64)> = if counted { Some(&mut count) } else { None };
        let to = LONGEST + length;
        let taken = seat
            .viewer
            .take(&mut self.buffer, to, self.plan.comes_back, each);
        match taken {
            Ok(taken) => self.count(index, &taken, seen),
            Err(Broken::Malformed) => {
                self.lose(index, seen, Some("an answer that is no HTTP".to_owned()));
            }
            Err(Broken::Status(status)) => {
                self.lose(index, seen, Some(format!("answered {status}")));
            }
        }
    }

    fn count(&mut self, index: usize, taken: &Taken, seen: &mut Seen) {
        let seat = &mut self.seats[index];
        seen.sums.messages += taken.messages;
        seen.sums.seams += taken.seams;
        seen.sums.gaps += taken.gaps;
        seen.sums.closing += taken.closing;
        if taken.seams > 0 {
            let next = seat.viewer.next;
            let what = format!("viewer {index} found a seam before message {next}");
            seen.trouble.get_or_insert(what);
        }
        if taken.opened {
            seat.open = true;
            self.underway -= 1;
            seen.sums.open += 1;
            seen.sums.opened += 1;
            let took = seat.viewer.since.elapsed().as_nanos();
            seen.openings
                .record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        if taken.messages > 0 {
            self.shared.last[index].store(seat.viewer.next - 1, Ordering::Relaxed);
        }
        if taken.over {
            self.lose(index, seen, None);
        }
    }

    /// A connection is over, as the server wished or for `reason`.
    fn lose(&mut self, index: usize, seen: &mut Seen, reason: Option<String>) {
        let seat = &mut self.seats[index];
        // Closed by this, and taken out of epoll by the kernel.
        if seat.socket.take().is_none() {
            return;
        }
        let retry = seat.viewer.leave();
        seat.connecting = false;
        let pause = if std::mem::take(&mut seat.open) {
            seen.sums.open -= 1;
            seen.sums.ended += 1;
            retry
        } else {
            self.underway -= 1;
            seen.sums.refused += 1;
            REFUSED
        };
        if let Some(reason) = reason {
            seen.trouble
                .get_or_insert(format!("viewer {index}: {reason}"));
        }
        if self.plan.comes_back {
            self.away.push((Instant::now() + pause, index));
        }
    }
}
