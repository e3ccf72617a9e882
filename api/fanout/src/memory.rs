//! The memory of one gateway: what the frames of all watched runs may take together, and whether
//! the process exceeds its limit.
//!
//! Each run may keep its share of [`FRAME_BUDGET_BYTES`], so memory stays bounded however many runs
//! are watched. Viewers have no queues: only a cursor and a socket each grow with their number.
//!
//! If the process still exceeds its limit, every run keeps [`MIN_RUN_BYTES`], and viewers are
//! closed in rounds, one every [`CHECK_INTERVAL`], on every kind of connection. Of the viewers on
//! writer threads a round closes one of [`SHED_ONE_OF_VIEWERS`], those furthest behind first. Of
//! the viewers on connections of the HTTP library it closes those that took nothing for a whole
//! round, and the same share of the others. Closed viewers resume exactly, here or at another
//! gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::ring::RING_BYTES;

/// Frames of all watched runs together, as long as each run may keep [`MIN_RUN_BYTES`].
const FRAME_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Frames that each run may keep, however many runs there are: a moment of a lively run.
const MIN_RUN_BYTES: usize = 64 * 1024;

/// Viewers are closed until the process is below this share of its limit.
const RELIEF_PERCENT: u64 = 90;

/// How often the limit is checked.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A round closes one of so many viewers.
pub(crate) const SHED_ONE_OF_VIEWERS: u32 = 20;

/// The heap is trimmed after so many viewers have come, once a check finds no new one ...
const TRIM_WHEN_CALM_VIEWERS: u64 = 100;

/// ... or after so many, even if they keep coming.
const TRIM_ALWAYS_VIEWERS: u64 = 2000;

/// The reason that a viewer gets which is closed for want of memory.
pub(crate) const SHED_REASON: &str = "this server has too little memory";

/// The memory of one gateway.
#[derive(Debug)]
pub struct MemoryGuard {
    /// Resident bytes that the process may have.
    limit: Option<u64>,
    runs: AtomicUsize,
    is_over: AtomicBool,
    /// Viewers that have come: until now, until the last check, and until the last trim.
    viewers: AtomicU64,
    viewers_at_check: AtomicU64,
    viewers_at_trim: AtomicU64,
    /// Counts rounds.
    rounds: watch::Sender<u64>,
    /// Viewers and connections that were closed, of those that the HTTP library serves.
    closed: Counter,
}

impl MemoryGuard {
    /// The guard of a process that may have `limit` resident bytes, or any number. `closed` counts
    /// the viewers that rounds close on connections of the HTTP library.
    pub fn new(limit: Option<u64>, closed: Counter) -> Self {
        Self {
            limit,
            runs: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            viewers: AtomicU64::new(0),
            viewers_at_check: AtomicU64::new(0),
            viewers_at_trim: AtomicU64::new(0),
            rounds: watch::Sender::new(0),
            closed,
        }
    }

    /// Counts a viewer that has come.
    pub(crate) fn count_viewer(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether freed memory should go back to the system: many viewers have come and none
    /// since the last check, or very many have come, or the process exceeds its limit.
    pub(crate) fn should_trim_heap(&self) -> bool {
        let viewers = self.viewers.load(Ordering::Relaxed);
        let is_calm = self.viewers_at_check.swap(viewers, Ordering::Relaxed) == viewers;
        let new = viewers - self.viewers_at_trim.load(Ordering::Relaxed);
        let should_trim = (new >= TRIM_WHEN_CALM_VIEWERS && is_calm)
            || new >= TRIM_ALWAYS_VIEWERS
            || self.is_over.load(Ordering::Relaxed);
        if should_trim {
            self.viewers_at_trim.store(viewers, Ordering::Relaxed);
        }
        should_trim
    }

    /// The rounds from now on.
    pub fn shedding(self: &Arc<Self>) -> ShedSignal {
        ShedSignal {
            rounds: self.rounds.subscribe(),
            memory: Arc::clone(self),
        }
    }

    /// Begins a round, in which some viewers are closed.
    pub(crate) fn begin_shed_round(&self) {
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Sets how many runs share the memory.
    pub(crate) fn set_watched_runs(&self, runs: usize) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// Bytes of frames that one run may keep.
    pub(crate) fn bytes_per_run(&self) -> usize {
        if self.is_over.load(Ordering::Relaxed) {
            return MIN_RUN_BYTES;
        }
        let runs = self.runs.load(Ordering::Relaxed).max(1);
        (FRAME_BUDGET_BYTES / runs).clamp(MIN_RUN_BYTES, RING_BYTES)
    }

    /// Checks the memory in use. Returns whether viewers have to be closed.
    pub(crate) fn check_limit(&self) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let resident = match resident_bytes() {
            Ok(resident) => resident,
            Err(error) => {
                debug!(%error, "cannot read the resident memory of the process");
                return false;
            }
        };
        // Once over the limit, the process has to get well below it.
        let was_over = self.is_over.load(Ordering::Relaxed);
        let relieved = limit / 100 * RELIEF_PERCENT;
        let is_over = resident > if was_over { relieved } else { limit };
        if self.is_over.swap(is_over, Ordering::Relaxed) != is_over && is_over {
            warn!(
                resident,
                limit, "over the memory limit; closing viewers until the limit is kept"
            );
        }
        is_over
    }
}

/// The rounds, as one viewer sees them.
#[derive(Debug)]
pub struct ShedSignal {
    rounds: watch::Receiver<u64>,
    memory: Arc<MemoryGuard>,
}

impl ShedSignal {
    /// Returns whether a round has begun since the last call; several rounds count as one.
    pub(crate) fn round_has_begun(&mut self) -> bool {
        let has_begun = self.rounds.has_changed().unwrap_or(false);
        self.rounds.mark_unchanged();
        has_begun
    }

    /// Returns whether a round has begun that closes the owner of this signal, and counts the owner
    /// as closed then.
    pub(crate) fn should_close(&mut self) -> bool {
        let closes = self.round_has_begun() && rand::rng().random_ratio(1, SHED_ONE_OF_VIEWERS);
        if closes {
            self.memory.closed.inc();
        }
        closes
    }

    /// Waits until a round begins; [`ShedSignal::should_close`] sees that round afterwards.
    pub(crate) async fn next_round(&mut self) {
        match self.rounds.changed().await {
            Ok(()) => self.rounds.mark_changed(),
            Err(_gone) => std::future::pending().await,
        }
    }

    /// Waits until a whole round is over, for an owner that takes nothing meanwhile. The owner has
    /// to be closed then, and is counted as closed.
    pub async fn whole_round(mut self) {
        for _ in 0..2 {
            if self.rounds.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        self.memory.closed.inc();
    }
}

/// Resident bytes of this process.
fn resident_bytes() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    match (pages, page_bytes) {
        (Some(pages), Some(page_bytes)) => Ok(pages * page_bytes),
        _ => Err(std::io::Error::other("/proc/self/statm is unreadable")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_share_the_budget_down_to_a_minimum_each() {
        let memory = MemoryGuard::new(None, Counter::default());
        assert_eq!(memory.bytes_per_run(), RING_BYTES);
        memory.set_watched_runs(128);
        assert_eq!(memory.bytes_per_run(), 2 * 1024 * 1024);
        memory.set_watched_runs(1_000_000);
        assert_eq!(memory.bytes_per_run(), MIN_RUN_BYTES);
        assert!(!memory.check_limit());
    }

    #[test]
    fn a_process_over_its_limit_keeps_the_minimum_per_run() {
        let memory = MemoryGuard::new(Some(1), Counter::default());
        assert!(memory.check_limit());
        assert_eq!(memory.bytes_per_run(), MIN_RUN_BYTES);
        assert!(!MemoryGuard::new(Some(u64::MAX), Counter::default()).check_limit());
    }

    #[test]
    fn heap_is_trimmed_after_a_crowd_once_no_viewer_comes() {
        let memory = MemoryGuard::new(None, Counter::default());
        assert!(!memory.should_trim_heap());
        (0..TRIM_WHEN_CALM_VIEWERS).for_each(|_| memory.count_viewer());
        assert!(!memory.should_trim_heap(), "viewers are still coming");
        assert!(memory.should_trim_heap());
        assert!(!memory.should_trim_heap(), "no viewer has come since");
        (0..TRIM_ALWAYS_VIEWERS).for_each(|_| memory.count_viewer());
        assert!(memory.should_trim_heap(), "viewers may keep coming");
    }

    #[tokio::test]
    async fn a_round_is_seen_once_and_a_stuck_viewer_is_closed_after_a_whole_one() {
        let memory = Arc::new(MemoryGuard::new(Some(1), Counter::default()));
        let mut shedding = memory.shedding();
        assert!(!shedding.round_has_begun());
        memory.begin_shed_round();
        shedding.next_round().await;
        assert!(shedding.round_has_begun() && !shedding.round_has_begun());
        let mut stuck = std::pin::pin!(memory.shedding().whole_round());
        for rounds in 0..2 {
            assert_eq!(futures::poll!(stuck.as_mut()), std::task::Poll::Pending);
            assert_eq!(memory.closed.get(), 0, "{rounds}");
            memory.begin_shed_round();
        }
        stuck.await;
        assert_eq!(memory.closed.get(), 1);
    }

    #[test]
    fn a_round_closes_about_one_viewer_of_twenty() {
        let memory = Arc::new(MemoryGuard::new(Some(1), Counter::default()));
        let mut all: Vec<_> = (0..100 * SHED_ONE_OF_VIEWERS)
            .map(|_| memory.shedding())
            .collect();
        memory.begin_shed_round();
        let closed = all
            .iter_mut()
            .filter_map(|one| one.should_close().then_some(()))
            .count();
        assert!((20..500).contains(&closed), "{closed}");
        assert_eq!(memory.closed.get(), closed as u64);
    }
}
