//! The handle of a crowd: its plan, its counts, and how a story waits for them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;
use super::histogram::Histogram;

/// Bytes of one read at most.
pub const READ_BYTES: usize = 256 * 1024;

/// How often somebody who waits for a crowd looks at it.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A request of a viewer, by its number and by the id that it has seen last.
pub type RequestBuilder = Box<dyn Fn(usize, Option<&str>) -> String + Send>;

/// Who comes, and what for.
pub struct CrowdPlan {
    /// How many.
    pub viewers: usize,
    /// Where they connect to.
    pub address: SocketAddr,
    /// What they ask for: a whole HTTP/1.1 request.
    pub request: RequestBuilder,
    /// Number of the message that each must see first; 0 for any.
    pub first: Box<dyn Fn(usize) -> u64 + Send>,
    /// Whether they come back when their stream ends, with the id that they have seen last.
    pub reconnects: bool,
    /// How many connect at the same time.
    pub max_connecting: usize,
    /// Whether how long each message took is counted; otherwise only of each 16th viewer.
    pub record_all: bool,
}

impl std::fmt::Debug for CrowdPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("viewers", &self.viewers)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a crowd has seen so far, all viewers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrowdCounts {
    /// Streams that are open.
    pub open: u64,
    /// Streams that have been opened.
    pub opened: u64,
    /// Messages.
    pub messages: u64,
    /// Places where messages were missing, doubled or out of order.
    pub sequence_errors: u64,
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
pub(crate) struct Observations {
    pub(crate) counts: CrowdCounts,
    pub(crate) latencies: Histogram,
    pub(crate) open_times: Histogram,
    pub(crate) first_error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    /// The number of the last message of each viewer.
    pub(crate) last_message: Vec<AtomicU64>,
    /// Locked once for a event_loop of the loop, not for each message.
    pub(crate) observations: Mutex<Observations>,
}

impl Shared {
    pub(crate) fn observations(&self) -> std::sync::MutexGuard<'_, Observations> {
        self.observations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    pub fn start(plan: CrowdPlan) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            last_message: (0..plan.viewers).map(|_| AtomicU64::new(0)).collect(),
            observations: Mutex::default(),
        });
        let event_loop = EventLoop::new(plan, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("crowd".to_owned())
            .spawn(move || event_loop.run());
        Self {
            shared,
            thread: Some(thread.expect("a thread for the crowd")),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counts(&self) -> CrowdCounts {
        self.shared.observations().counts
    }

    /// What went wrong first, if something did.
    #[must_use]
    pub fn first_error(&self) -> Option<String> {
        self.shared.observations().first_error.clone()
    }

    /// How long messages took since this was asked last.
    #[must_use]
    pub fn take_latencies(&self) -> Histogram {
        std::mem::take(&mut self.shared.observations().latencies)
    }

    /// How long it took each from the beginning of its connection wait_until its stream began.
    #[must_use]
    pub fn open_times(&self) -> Histogram {
        self.shared.observations().open_times.clone()
    }

    /// The number of the last message of whoever has seen least.
    #[must_use]
    pub fn min_message(&self) -> u64 {
        let last = self.shared.last_message.iter();
        last.map(|last| last.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// How many have seen this message.
    #[must_use]
    pub fn viewers_at(&self, number: u64) -> usize {
        let last = self.shared.last_message.iter();
        last.filter(|last| last.load(Ordering::Relaxed) >= number)
            .count()
    }

    /// Waits wait_until all streams are open.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn wait_all_open(&self, within: Duration) -> Result<Duration, String> {
        let all = self.shared.last_message.len() as u64;
        self.wait_until(within, |crowd| crowd.counts().open == all)
    }

    /// Waits wait_until everybody has seen this message.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn wait_all_received(&self, number: u64, within: Duration) -> Result<Duration, String> {
        self.wait_until(within, |crowd| crowd.min_message() >= number)
    }

    /// Waits wait_until it is as `enough` says; gives how long that took.
    ///
    /// # Errors
    /// What was seen, when time is up.
    pub fn wait_until(
        &self,
        within: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        while !enough(self) {
            if start.elapsed() > within {
                return Err(format!(
                    "not within {within:?}: of {} viewers the min_message has seen {}, {:?}, {}",
                    self.shared.last_message.len(),
                    self.min_message(),
                    self.counts(),
                    self.first_error().unwrap_or_default(),
                ));
            }
            std::thread::sleep(POLL_INTERVAL);
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
