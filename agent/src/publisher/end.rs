//! How a publisher ends, and where its events are then.

use std::time::Duration;

use super::{Closed, PublishError, Publisher, Stopped};
use crate::progress::Progress;

/// Longest wait for the sending task once it has been told to end, which it does between two steps.
const TASK_END: Duration = Duration::from_secs(1);

/// How a wait for the sending task ended.
pub(super) enum Wait {
    Over,
    Stopped,
    Deadline,
}

impl Publisher {
    pub(super) async fn wait_closed(&self, within: Duration) -> Result<Closed, PublishError> {
        let shared = &self.shared;
        let over = |now: &Progress| {
            let last = shared.queue.last_seq();
            now.durable >= last || (shared.commands.is_none() && now.spooled >= last)
        };
        let waited = self.wait_for(within, over).await;
        let last = shared.queue.last_seq();
        shared.queue.stop(Stopped::Closed);
        shared.stop.cancel();
        // The files are let go of, or deleted, before the publisher is told.
        self.wait_for(TASK_END, |_now| false).await;
        let now = shared.progress.borrow().clone();
        match (waited, shared.queue.stopped()) {
            (Wait::Stopped, why @ Some(Stopped::Fenced { .. } | Stopped::Died)) => {
                Err(why.map_or(PublishError::Closed, PublishError::Stopped))
            }
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
