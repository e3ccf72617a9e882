//! The handle of a crowd: its plan, its counts, and waits for them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;
use super::histogram::Histogram;

/// Longest read.
pub const READ_BYTES: usize = 256 * 1024;

/// How often a wait checks the counts.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Builds the request of a viewer from its number and its last event id.
pub type RequestBuilder = Box<dyn Fn(usize, Option<&str>) -> String + Send>;

/// What a crowd does.
pub struct CrowdPlan {
    /// How many viewers there are.
    pub viewers: usize,
    /// The server's address.
    pub address: SocketAddr,
    /// Builds a whole HTTP/1.1 request.
    pub request: RequestBuilder,
    /// The number of the first message that a viewer must receive; 0 for any.
    pub first: Box<dyn Fn(usize) -> u64 + Send>,
    /// Whether viewers reconnect when their stream ends, with their last event id.
    pub reconnects: bool,
    /// How many viewers connect at the same time.
    pub max_connecting: usize,
    /// Whether the latencies of all viewers are recorded, not only of each 16th.
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

/// The counts of all viewers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrowdCounts {
    /// Open streams.
    pub open: u64,
    /// Streams opened so far.
    pub opened: u64,
    /// Messages.
    pub messages: u64,
    /// Positions where messages were missing, doubled or out of order.
    pub sequence_errors: u64,
    /// `gap` frames.
    pub gaps: u64,
    /// `closing` frames.
    pub closing: u64,
    /// Streams that ended or failed.
    pub ended: u64,
    /// Connections that were refused, or got another response than a stream.
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
pub(crate) struct CrowdState {
    pub(crate) stop: AtomicBool,
    /// The number of the last message of each viewer.
    pub(crate) last_message: Vec<AtomicU64>,
    /// Locked once per round of the loop, not per message.
    pub(crate) observations: Mutex<Observations>,
}

impl CrowdState {
    pub(crate) fn observations(&self) -> std::sync::MutexGuard<'_, Observations> {
        self.observations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running crowd; its viewers leave when it is dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<CrowdState>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Starts the viewers.
    pub fn start(plan: CrowdPlan) -> Self {
        let shared = Arc::new(CrowdState {
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

    /// The counts so far.
    pub fn counts(&self) -> CrowdCounts {
        self.shared.observations().counts
    }

    /// The first error, if any.
    pub fn first_error(&self) -> Option<String> {
        self.shared.observations().first_error.clone()
    }

    /// The latencies of messages since the last call.
    pub fn take_latencies(&self) -> Histogram {
        std::mem::take(&mut self.shared.observations().latencies)
    }

    /// The times from the start of a connection until its stream began.
    pub fn open_times(&self) -> Histogram {
        self.shared.observations().open_times.clone()
    }

    /// The number of the last message of the slowest viewer.
    pub fn min_message(&self) -> u64 {
        let last = self.shared.last_message.iter();
        last.map(|last| last.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// How many viewers have received this message.
    pub fn viewers_at(&self, number: u64) -> usize {
        let last = self.shared.last_message.iter();
        last.filter(|last| last.load(Ordering::Relaxed) >= number)
            .count()
    }

    /// Waits until all streams are open. The error describes the state at the deadline.
    pub fn wait_all_open(&self, within: Duration) -> Result<Duration, String> {
        let all = self.shared.last_message.len() as u64;
        self.wait_until(within, |crowd| crowd.counts().open == all)
    }

    /// Waits until all viewers have received this message. Errors as above.
    pub fn wait_all_received(&self, number: u64, within: Duration) -> Result<Duration, String> {
        self.wait_until(within, |crowd| crowd.min_message() >= number)
    }

    /// Waits until `enough` is true, and returns how long that took. Errors as above.
    pub fn wait_until(
        &self,
        within: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        while !enough(self) {
            if start.elapsed() > within {
                return Err(format!(
                    "not within {within:?}: the slowest of {} viewers has message {}, {:?}, {}",
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
