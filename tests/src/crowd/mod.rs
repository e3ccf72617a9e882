//! Thousands of viewers of server-sent events in one thread: raw sockets that cost little, to judge servers by.
//!
//! - One thread, epoll by mio, one buffer of [`READ_BYTES`] that all sockets read into. A viewer is a socket, the piece
//!   of a frame that is not whole yet, and the number of the message that must come next.
//! - Messages carry a [`mark`](crate::mark). Every viewer checks that their numbers follow each other without a seam, also
//!   over connections where it comes back; durations from when a message was due are counted in a [`Histogram`].
//! - A viewer that comes back sends the last id that it has seen, after the time that `retry:` asked for.
//!
//! The thread ends with the [`Crowd`], and all sockets with it.

mod histogram;
mod turn;
mod viewer;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::histogram::Histogram;

/// Bytes of one read at most.
pub const READ_BYTES: usize = 256 * 1024;

/// How often somebody who waits for a crowd looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A request of a viewer, by its number and by the id that it has seen last.
pub type Request = Box<dyn Fn(usize, Option<&str>) -> String + Send>;

/// Who comes, and what for.
pub struct Plan {
    /// How many.
    pub viewers: usize,
    /// Where they connect to.
    pub address: SocketAddr,
    /// What they ask for: a whole HTTP/1.1 request.
    pub request: Request,
    /// Number of the message that each must see first; 0 for any.
    pub first: Box<dyn Fn(usize) -> u64 + Send>,
    /// Whether they come back when their stream ends, with the id that they have seen last.
    pub comes_back: bool,
    /// How many connect at the same time.
    pub at_once: usize,
    /// Whether how long each message took is counted; otherwise only of each 16th viewer.
    pub every_duration: bool,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("viewers", &self.viewers)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a crowd has seen so far, all viewers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Streams that are open.
    pub open: u64,
    /// Streams that have been opened.
    pub opened: u64,
    /// Messages.
    pub messages: u64,
    /// Places where messages were missing, doubled or out of order.
    pub seams: u64,
    /// `gap` frames.
    pub gaps: u64,
    /// `closing` frames.
    pub closing: u64,
    /// Streams that ended or broke.
    pub ended: u64,
    /// Connections that were refused, or answered otherwise than with a stream.
    pub refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sums: Sums,
    pub(crate) durations: Histogram,
    pub(crate) openings: Histogram,
    pub(crate) trouble: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    /// The number of the last message of each viewer.
    pub(crate) last: Vec<AtomicU64>,
    /// Locked once for a turn of the loop, not for each message.
    pub(crate) seen: Mutex<Seen>,
}

impl Shared {
    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A crowd at work; it leaves when dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Lets them come.
    ///
    /// # Panics
    /// If the kernel gives no epoll.
    #[must_use]
    pub fn gather(plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            last: (0..plan.viewers).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::default(),
        });
        let turn = turn::Turn::new(plan, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("crowd".to_owned())
            .spawn(move || turn.run());
        Self {
            shared,
            thread: Some(thread.expect("a thread for the crowd")),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.shared.seen().sums
    }

    /// What went wrong first, if something did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.seen().trouble.clone()
    }

    /// How long messages took since this was asked last.
    #[must_use]
    pub fn take_durations(&self) -> Histogram {
        std::mem::take(&mut self.shared.seen().durations)
    }

    /// How long it took each from the beginning of its connection until its stream began.
    #[must_use]
    pub fn openings(&self) -> Histogram {
        self.shared.seen().openings.clone()
    }

    /// The number of the last message of whoever has seen least.
    #[must_use]
    pub fn slowest(&self) -> u64 {
        let last = self.shared.last.iter();
        last.map(|last| last.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// How many have seen this message.
    #[must_use]
    pub fn have_seen(&self, number: u64) -> usize {
        let last = self.shared.last.iter();
        last.filter(|last| last.load(Ordering::Relaxed) >= number)
            .count()
    }

    /// Waits until all streams are open.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn all_open(&self, within: Duration) -> Result<Duration, String> {
        let all = self.shared.last.len() as u64;
        self.until(within, |crowd| crowd.sums().open == all)
    }

    /// Waits until everybody has seen this message.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn all_have_seen(&self, number: u64, within: Duration) -> Result<Duration, String> {
        self.until(within, |crowd| crowd.slowest() >= number)
    }

    /// Waits until it is as `enough` says; gives how long that took.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn until(
        &self,
        within: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        while !enough(self) {
            if start.elapsed() > within {
                return Err(format!(
                    "not within {within:?}: of {} viewers the slowest has seen {}, {:?}, {}",
                    self.shared.last.len(),
                    self.slowest(),
                    self.sums(),
                    self.trouble().unwrap_or_default(),
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(start.elapsed())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the thread of a crowd has panicked"
            );
        }
    }
}
