//! What the frames of all watched runs together may take, and whether the process is over its limit.
//!
//! Each run may keep its share of [`FRAMES`], so that memory stays bounded however many runs are watched. Viewers have no
//! queues, so nothing else grows with them but a cursor and a socket each. Should the process be over its limit
//! all the same, every run keeps the least, and viewers are closed, those first who take least: they resume exactly,
//! here or elsewhere.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::{debug, warn};

use super::ring::RING_BYTES;

/// Bytes of frames that all watched runs keep together, as long as each may keep the least.
const FRAMES: usize = 256 * 1024 * 1024;

/// What each may keep however many there are: a moment of a lively run.
const LEAST: usize = 64 * 1024;

/// The share of the limit at which viewers are no longer closed.
const RELIEVED_PERCENT: u64 = 90;

/// The memory of one gateway.
#[derive(Debug)]
pub struct Memory {
    /// Resident bytes that the process may have.
    limit: Option<u64>,
    runs: AtomicUsize,
    is_over: AtomicBool,
}

impl Memory {
    /// Of a process that may have so many resident bytes, or as many as it likes.
    #[must_use]
    pub const fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            runs: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
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
        let memory = Memory::new(None);
        assert_eq!(memory.share(), RING_BYTES);
        memory.watched(128);
        assert_eq!(memory.share(), 2 * 1024 * 1024);
        memory.watched(1_000_000);
        assert_eq!(memory.share(), LEAST);
        assert!(!memory.is_over());
    }

    #[test]
    fn a_process_over_its_limit_keeps_the_least() {
        let memory = Memory::new(Some(1));
        assert!(memory.is_over());
        assert_eq!(memory.share(), LEAST);
        assert!(!Memory::new(Some(u64::MAX)).is_over());
    }
}
