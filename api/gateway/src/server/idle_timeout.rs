//! Whether anything is under way on a connection.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// What is under way on a connection.
#[derive(Debug, Clone)]
pub(super) struct Activity(watch::Sender<usize>);

/// Something that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Activity {
    /// Something begins.
    #[must_use]
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count += 1);
        Busy(self.0.clone())
    }

    /// Returns once nothing was under way for this long.
    pub(super) async fn idle(&self, time: Duration) {
        let mut count = self.0.subscribe();
        // A sender lives here, so waiting cannot fail.
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

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test]
    async fn idle_counts_from_the_end_of_the_last() {
        let activity = Activity::default();
        let pause = Duration::from_millis(50);
        let began = Instant::now();
        let (one, two) = (activity.begin(), activity.begin());
        let working = async {
            sleep(pause).await;
            drop(one);
            sleep(pause).await;
            drop(two);
        };
        tokio::join!(working, activity.idle(pause));
        assert!(began.elapsed() >= 3 * pause);
    }
}
