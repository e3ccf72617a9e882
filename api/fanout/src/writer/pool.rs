//! Writes to the sockets of viewers: a few threads for all of them, none of their own.
//!
//! ```text
//! HTTP: request, answer's head --socket--> Desk (mailbox of a thread) --> Courier: epoll over its seats
//! tail: "there is more" -----------------> Desk                              \--> seat: a cursor and a socket
//! ```
//!
//! A connection that is to carry a stream is taken from the HTTP library as soon as the request is answered, so what
//! stays of a viewer is its [`seat`]: the socket, the cursor, and the rest of a frame that the socket has not
//! taken. When a run grows, its [`courier`] goes from seat to seat and gives each the same bytes, in one write.
//!
//! Data: no queues but a desk's arrivals (bounded by the connections there are) and the runs that changed, each once.
//! Time: a run's seats are served at most every [`courier::FLUSH`], so that what comes in between is one write; a
//! first event after a pause leaves at once.

use std::collections::HashSet;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mio::{Poll, Token, Waker};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::hub::Hub;
use crate::tail::TailListener;
use crate::viewer::Viewer;
use crate::writer::thread::WriterThread;

/// The threads that write.
#[derive(Debug)]
pub struct WriterPool {
    desks: Vec<Arc<Mailbox>>,
    next: AtomicUsize,
    couriers: Mutex<Vec<WriterThread>>,
}

/// The mailbox of one thread.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    waker: Waker,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(super) arrivals: Vec<NewConnection>,
    /// Runs with something new for their viewers.
    pub(super) changed: HashSet<Uuid>,
    /// What some viewers were let in by has ended.
    pub(super) ends: bool,
    pub(super) stops: bool,
}

/// A viewer who has been let in.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub(crate) socket: TcpStream,
    /// The head of the answer.
    pub(crate) head: Bytes,
    pub(crate) viewer: Viewer,
}

/// What is counted of the viewers that sit here.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) viewers: Gauge,
    pub(crate) bytes: Counter,
    closed: Family<[(&'static str, &'static str); 1], Counter>,
}

/// The token of the waker; seats have all others.
pub(crate) const WAKER: Token = Token(usize::MAX);

impl WriterPool {
    /// One thread for every two processors: the others make the frames. A viewer who takes nothing for as long as
    /// `patience` is closed. [`WriterPool::run`] must be running for anything to be written.
    ///
    /// # Errors
    /// If the kernel gives no `epoll`.
    pub fn new(hub: &Arc<Hub>, patience: Duration, meter: &Metrics) -> io::Result<Arc<Self>> {
        let threads = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        let mut desks = Vec::new();
        let mut couriers = Vec::new();
        for _ in 0..threads {
            let poll = Poll::new()?;
            let desk = Arc::new(Mailbox {
                inbox: Mutex::default(),
                waker: Waker::new(poll.registry(), WAKER)?,
            });
            couriers.push(WriterThread::new(
                poll,
                Arc::clone(&desk),
                hub.shedding(),
                patience,
                meter.clone(),
            ));
            desks.push(desk);
        }
        Ok(Arc::new(Self {
            desks,
            next: AtomicUsize::new(0),
            couriers: Mutex::new(couriers),
        }))
    }

    /// Sends those away whose credential has ended, whenever `endings` changes. Writes until `stop`, then tells all
    /// viewers to come back, and ends when they are gone, or after [`courier::DRAIN`].
    ///
    /// # Errors
    /// If `epoll` fails, or a thread dies.
    pub async fn run(
        self: Arc<Self>,
        stop: CancellationToken,
        mut endings: watch::Receiver<u64>,
    ) -> io::Result<()> {
        let couriers = std::mem::take(&mut *lock(&self.couriers));
        let mut threads = JoinSet::new();
        for courier in couriers {
            threads.spawn_blocking(move || courier.run());
        }
        let mut is_told = false;
        loop {
            tokio::select! {
                () = stop.cancelled(), if !is_told => {
                    is_told = true;
                    self.desks.iter().for_each(|desk| desk.stop());
                }
                Ok(()) = endings.changed() => self.desks.iter().for_each(|desk| desk.end()),
                ended = threads.join_next() => match ended {
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => return Err(error),
                    Some(Err(died)) => return Err(io::Error::other(died)),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Takes over a connection whose request is answered, but for the head of the answer. The socket must not block.
    pub fn seat(&self, socket: TcpStream, head: Bytes, viewer: Viewer) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let desk = &self.desks[turn % self.desks.len()];
        desk.take(|inbox| {
            inbox.arrivals.push(NewConnection {
                socket,
                head,
                viewer,
            });
        });
    }
}

impl TailListener for Mailbox {
    fn changed(&self, run: Uuid) {
        self.take(|inbox| {
            inbox.changed.insert(run);
        });
    }
}

impl Mailbox {
    fn end(&self) {
        self.take(|inbox| inbox.ends = true);
    }

    fn stop(&self) {
        self.take(|inbox| inbox.stops = true);
    }

    fn take(&self, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = lock(&self.inbox);
        let was_empty = inbox.arrivals.is_empty() && inbox.changed.is_empty();
        put(&mut inbox);
        drop(inbox);
        // Whoever put the first thing in has woken the thread.
        if was_empty && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a delivery thread cannot be woken; it looks every second");
        }
    }

    pub(crate) fn empty(&self) -> Inbox {
        let mut inbox = lock(&self.inbox);
        Inbox {
            stops: inbox.stops,
            ends: std::mem::take(&mut inbox.ends),
            arrivals: std::mem::take(&mut inbox.arrivals),
            changed: std::mem::take(&mut inbox.changed),
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("runcast_viewers");
        registry.register(
            "open",
            "Viewers on sockets of their own",
            self.viewers.clone(),
        );
        registry.register(
            "sent_bytes",
            "Bytes that they were sent",
            self.bytes.clone(),
        );
        registry.register(
            "closed",
            "Viewers that are gone, by reason: left, ended, drained, revoked (what they were let in by), stalled (took nothing for too long), memory (the \
             process was over its limit), failed",
            self.closed.clone(),
        );
    }

    /// Counts viewers that sit elsewhere and had to go because the process was over its memory limit.
    #[must_use]
    pub fn shed(&self) -> Counter {
        self.closed
            .get_or_create(&[("reason", CloseReason::Memory.name())])
            .clone()
    }

    pub(crate) fn closed(&self, why: CloseReason) {
        self.viewers.dec();
        self.closed.get_or_create(&[("reason", why.name())]).inc();
    }
}

/// Why a viewer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    Left,
    Ended,
    Drained,
    Revoked,
    Stalled,
    Memory,
    Failed,
}

impl CloseReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Ended => "ended",
            Self::Drained => "drained",
            Self::Revoked => "revoked",
            Self::Stalled => "stalled",
            Self::Memory => "memory",
            Self::Failed => "failed",
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
