//! A bound on the rate of a log line: whatever arrives, an operator reads one line a while, with
//! the count of those that were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Limits one kind of log line.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogLimit {
    /// One line per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::new((None, 0)),
        }
    }

    /// Counts `count` occurrences. If a line is due, returns how many occurred since the last one.
    pub fn admit(&self, count: u64) -> Option<u64> {
        if count == 0 {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, waiting) = &mut *state;
        *waiting += count;
        if last.is_some_and(|last| last.elapsed() < self.interval) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_interval_counts_all_occurrences() {
        let limit = LogLimit::new(Duration::from_secs(10));
        assert_eq!(limit.admit(0), None);
        assert_eq!(limit.admit(2), Some(2));
        assert_eq!(limit.admit(3), None);
        assert_eq!(limit.admit(1), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limit.admit(1), Some(5));
        assert_eq!(limit.admit(1), None);
    }
}
