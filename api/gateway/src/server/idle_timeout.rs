//! How long an HTTP/2 connection has had no request in progress.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The number of requests in progress on a connection.
#[derive(Debug, Clone)]
pub(super) struct Activity(watch::Sender<usize>);

/// A request in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(watch::Sender<usize>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Activity {
    /// Starts a request.
    #[must_use]
    pub(super) fn begin(&self) -> RequestGuard {
        self.0.send_modify(|count| *count += 1);
        RequestGuard(self.0.clone())
    }

    /// Returns once no request was in progress for this long.
    pub(super) async fn idle_for(&self, time: Duration) {
        let mut count = self.0.subscribe();
        // `self` holds the sender, so waiting cannot fail.
        while count.wait_for(|count| *count == 0).await.is_ok() {
            if timeout(time, count.wait_for(|count| *count > 0))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test]
    async fn idle_time_counts_from_the_end_of_the_last_request() {
        let activity = Activity::default();
        let pause = Duration::from_millis(50);
        let began = Instant::now();
        let (one, two) = (activity.begin(), activity.begin());
        let requests = async {
            sleep(pause).await;
            drop(one);
            sleep(pause).await;
            drop(two);
        };
        tokio::join!(requests, activity.idle_for(pause));
        assert!(began.elapsed() >= 3 * pause);
    }
}
