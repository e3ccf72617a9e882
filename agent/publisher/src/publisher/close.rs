//! How a publisher closes, and where its events are then.

use std::time::Duration;

use super::handle::Publisher;
use crate::error::{Closed, PublishError, Stopped};
use crate::sender::progress::Progress;

/// Longest wait for the sending task to end after its cancellation, which it checks between steps.
const TASK_END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a wait for progress ended.
pub(super) enum WaitOutcome {
    Reached,
    Stopped,
    Deadline,
}

impl Publisher {
    pub(super) async fn wait_closed(&self, within: Duration) -> Result<Closed, PublishError> {
        let shared = &self.shared;
        // 1. Wait until Postgres holds everything; a publisher without a target only spools.
        let is_done = |now: &Progress| {
            let last = shared.queue.last_seq();
            now.durable >= last || (shared.commands.is_none() && now.spooled >= last)
        };
        let waited = self.wait_for(within, is_done).await;
        // 2. Stop the task, and wait until it has closed or deleted the spool's files.
        let last = shared.queue.last_seq();
        shared.queue.stop(Stopped::Closed);
        shared.stop.cancel();
        self.wait_for(TASK_END_TIMEOUT, |_now| false).await;
        // 3. Report where the events are, unless the publisher was stopped by something else.
        let now = shared.progress.borrow().clone();
        match (waited, shared.queue.stopped()) {
            (
                WaitOutcome::Stopped,
                reason @ Some(Stopped::Fenced { .. } | Stopped::Deleted | Stopped::Died),
            ) => Err(reason.map_or(PublishError::Closed, PublishError::Stopped)),
            _ => {
                let acked = now.acked.max(now.durable).min(last);
                let spooled = now.spooled.min(last).max(acked) - acked;
                Ok(Closed {
                    stored: now.durable.min(last),
                    in_redis: acked.saturating_sub(now.durable),
                    spooled,
                    unsent: last - acked - spooled,
                    trouble: now.trouble,
                })
            }
        }
    }
}
