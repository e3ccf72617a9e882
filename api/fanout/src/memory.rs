//! What the frames of all watched runs together may take, and whether the process is over its limit.
//!
//! Each run may keep its share of [`FRAMES`], so that memory stays bounded however many runs are watched. Viewers have no
//! queues, so nothing else grows with them but a cursor and a socket each. Should the process be over its limit
//! all the same, every run keeps the least, and viewers are closed in rounds, one every [`LOOK_EVERY`]: of those on
//! sockets of their own the share [`SHED`], first those who take least; of those that the HTTP library carries whoever
//! took nothing for a whole round, and the same share of the others. They resume exactly, here or elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::ring::RING_BYTES;

/// Bytes of frames that all watched runs keep together, as long as each may keep the least.
const FRAMES: usize = 256 * 1024 * 1024;

/// What each may keep however many there are: a moment of a lively run.
const LEAST: usize = 64 * 1024;

/// The share of the limit at which viewers are no longer closed.
const RELIEVED_PERCENT: u64 = 90;

/// How often it is looked whether the limit is kept.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One viewer of so many has to go in a round.
pub(super) const SHED: u32 = 20;

/// As many viewers have to come before it is worth looking what they left, once nobody comes any more ...
const MANY: u64 = 100;

/// ... or as many, if they never stop to come.
const TOO_MANY: u64 = 2000;

/// What viewers are told who have to go.
pub(super) const TOO_LITTLE: &str = "this server has too little memory";

/// The memory of one gateway.
#[derive(Debug)]
pub struct MemoryGuard {
    /// Resident bytes that the process may have.
    limit: Option<u64>,
    runs: AtomicUsize,
    is_over: AtomicBool,
    /// Viewers who have come, up to now, up to the last look, and up to when freed memory was given back.
    arrived: AtomicU64,
    looked: AtomicU64,
    cleared: AtomicU64,
    /// Counts rounds in which viewers have to go.
    rounds: watch::Sender<u64>,
    /// Viewers and connections that were closed, of those that the HTTP library carries.
    closed: Counter,
}

impl MemoryGuard {
    /// Of a process that may have so many resident bytes, or as many as it likes. Those who have to go on connections
    /// that the HTTP library carries are counted in `closed`.
    #[must_use]
    pub fn new(limit: Option<u64>, closed: Counter) -> Self {
        Self {
            limit,
            runs: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            arrived: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            rounds: watch::Sender::new(0),
            closed,
        }
    }

    /// A viewer has come.
    pub(super) fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// True if what was freed shall be given back: many have come, and nobody since the last look; or very many; or too
    /// much is in use.
    pub(super) fn has_left_over(&self) -> bool {
        let arrived = self.arrived.load(Ordering::Relaxed);
        let is_calm = self.looked.swap(arrived, Ordering::Relaxed) == arrived;
        let new = arrived - self.cleared.load(Ordering::Relaxed);
        let has_left_over =
            (new >= MANY && is_calm) || new >= TOO_MANY || self.is_over.load(Ordering::Relaxed);
        if has_left_over {
            self.cleared.store(arrived, Ordering::Relaxed);
        }
        has_left_over
    }

    /// The rounds from now on.
    #[must_use]
    pub fn shedding(self: &Arc<Self>) -> ShedSignal {
        ShedSignal {
            rounds: self.rounds.subscribe(),
            memory: Arc::clone(self),
        }
    }

    /// Some viewers have to go.
    pub(super) fn begin_round(&self) {
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// So many runs are watched.
    pub(super) fn watched(&self, runs: usize) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// Bytes that one run may keep.
    pub(super) fn share(&self) -> usize {
        if self.is_over.load(Ordering::Relaxed) {
            return LEAST;
        }
        let runs = self.runs.load(Ordering::Relaxed).max(1);
        (FRAMES / runs).clamp(LEAST, RING_BYTES)
    }

    /// Looks how much there is; true if viewers have to go.
    pub(super) fn is_over(&self) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let resident = match resident() {
            Ok(resident) => resident,
            Err(error) => {
                debug!(%error, "the kernel does not tell how much memory is in use");
                return false;
            }
        };
        let was_over = self.is_over.load(Ordering::Relaxed);
        let relieved = limit / 100 * RELIEVED_PERCENT;
        let is_over = resident > if was_over { relieved } else { limit };
        if self.is_over.swap(is_over, Ordering::Relaxed) != is_over && is_over {
            warn!(
                resident,
                limit, "over the memory limit: viewers are closed until it is kept"
            );
        }
        is_over
    }
}

/// The rounds in which viewers have to go, as one of them sees them.
#[derive(Debug)]
pub struct ShedSignal {
    rounds: watch::Receiver<u64>,
    memory: Arc<MemoryGuard>,
}

impl ShedSignal {
    /// True once for each round that has begun; several that have begun since are one.
    pub(super) fn has_begun(&mut self) -> bool {
        let has_begun = self.rounds.has_changed().unwrap_or(false);
        self.rounds.mark_unchanged();
        has_begun
    }

    /// True if a round has begun in which its owner has to go, who is counted then.
    pub(super) fn has_to_go(&mut self) -> bool {
        let goes = self.has_begun() && rand::rng().random_ratio(1, SHED);
        if goes {
            self.memory.closed.inc();
        }
        goes
    }

    /// Waits until a round begins, which [`ShedSignal::has_to_go`] tells of afterwards.
    pub(super) async fn round(&mut self) {
        match self.rounds.changed().await {
            Ok(()) => self.rounds.mark_changed(),
            Err(_gone) => std::future::pending().await,
        }
    }

    /// Waits until a whole round is over, for who takes nothing meanwhile; its owner has to go then and is counted.
    pub async fn whole_round(mut self) {
        for _ in 0..2 {
            if self.rounds.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        self.memory.closed.inc();
    }
}

/// Bytes of this process that are in memory.
fn resident() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    let page = page.and_then(|page| u64::try_from(page).ok());
    match (pages, page) {
        (Some(pages), Some(page)) => Ok(pages * page),
        _ => Err(std::io::Error::other("/proc/self/statm makes no sense")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_share_and_each_keeps_the_least() {
        let memory = MemoryGuard::new(None, Counter::default());
        assert_eq!(memory.share(), RING_BYTES);
        memory.watched(128);
        assert_eq!(memory.share(), 2 * 1024 * 1024);
        memory.watched(1_000_000);
        assert_eq!(memory.share(), LEAST);
        assert!(!memory.is_over());
    }

    #[test]
    fn a_process_over_its_limit_keeps_the_least() {
        let memory = MemoryGuard::new(Some(1), Counter::default());
        assert!(memory.is_over());
        assert_eq!(memory.share(), LEAST);
        assert!(!MemoryGuard::new(Some(u64::MAX), Counter::default()).is_over());
    }

    #[test]
    fn what_is_left_over_is_given_back_once_nobody_comes_any_more() {
        let memory = MemoryGuard::new(None, Counter::default());
        assert!(!memory.has_left_over());
        (0..MANY).for_each(|_| memory.arrive());
        assert!(!memory.has_left_over(), "they are still coming");
        assert!(memory.has_left_over());
        assert!(!memory.has_left_over(), "nobody has come since");
        (0..TOO_MANY).for_each(|_| memory.arrive());
        assert!(memory.has_left_over(), "they may never stop to come");
    }

    #[tokio::test]
    async fn a_round_is_told_once_and_who_takes_nothing_goes_after_a_whole_one() {
        let memory = Arc::new(MemoryGuard::new(Some(1), Counter::default()));
        let mut shedding = memory.shedding();
        assert!(!shedding.has_begun());
        memory.begin_round();
        shedding.round().await;
        assert!(shedding.has_begun() && !shedding.has_begun());
        let mut stuck = std::pin::pin!(memory.shedding().whole_round());
        for rounds in 0..2 {
            assert_eq!(futures::poll!(stuck.as_mut()), std::task::Poll::Pending);
            assert_eq!(memory.closed.get(), 0, "{rounds}");
            memory.begin_round();
        }
        stuck.await;
        assert_eq!(memory.closed.get(), 1);
    }

    #[test]
    fn about_one_of_many_goes_in_a_round() {
        let memory = Arc::new(MemoryGuard::new(Some(1), Counter::default()));
        let mut all: Vec<_> = (0..100 * SHED).map(|_| memory.shedding()).collect();
        memory.begin_round();
        let gone = all
            .iter_mut()
            .filter_map(|one| one.has_to_go().then_some(()))
            .count();
        assert!((20..500).contains(&gone), "{gone}");
        assert_eq!(memory.closed.get(), gone as u64);
    }
}
