//! How long to wait before the next attempt: exponential, bounded, and spread by jitter so that
//! many waiters do not come back at once.

use std::time::Duration;

use rand::RngExt as _;

/// Waits that grow from `first` to `most` while attempts fail.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// Waits between half of `first` and, after enough failures, `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// For connections within a cluster: 50 ms, doubling up to 2 s.
    #[must_use]
    pub const fn for_connections() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// The next wait: a random part, at least half, of a bound that doubles with every call.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self
            .first
            .saturating_mul(1 << self.attempt.min(20))
            .min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        bound.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// How many waits have been taken since the last success.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempt
    }

    /// An attempt succeeded: the next wait is short again.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_over_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_wait();
            assert!(
                wait >= Duration::from_millis(bound / 2) && wait <= Duration::from_millis(bound)
            );
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
