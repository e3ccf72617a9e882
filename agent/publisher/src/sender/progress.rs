//! How far the sending task has come, and why it ended: published to everything that waits for it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Stopped;
use crate::queue::event_queue::Queue;

/// How far the publisher has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Highest seq that Redis has acknowledged.
    pub(crate) acked: u64,
    /// Highest seq that Postgres holds.
    pub(crate) durable: u64,
    /// Highest seq up to which the spool holds everything that is not durable.
    pub(crate) spooled: u64,
    /// Whether Redis has answered a call of the append script.
    pub(crate) reached: bool,
    /// The current problem, if there is one.
    pub(crate) trouble: Option<String>,
}

/// Publishes the progress. Dropping it stops the queue, also after a panic of the task: first the
/// reason is stored, then the channel closes, so a woken waiter always finds the reason.
#[derive(Debug)]
pub(super) struct ProgressReporter {
    queue: Arc<Queue>,
    stopped: Stopped,
    sender: watch::Sender<Progress>,
}

impl ProgressReporter {
    pub(super) fn new(queue: Arc<Queue>, sender: watch::Sender<Progress>) -> Self {
        Self {
            queue,
            stopped: Stopped::Died,
            sender,
        }
    }

    /// Sets the reason that the queue reports once the task has ended.
    pub(super) fn set_stopped(&mut self, reason: Stopped) {
        self.stopped = reason;
    }

    pub(super) fn set_trouble(&self, trouble: &str) {
        self.sender
            .send_modify(|progress| progress.trouble = Some(trouble.to_owned()));
    }

    pub(super) fn set_spooled(&self, spooled: u64) {
        self.sender.send_if_modified(|progress| {
            std::mem::replace(&mut progress.spooled, spooled) != spooled
        });
    }

    /// Publishes the positions after a good reply, which also ends any trouble.
    pub(super) fn advance(&self, acked: u64, durable: u64, spooled: u64) {
        let new = Progress {
            acked,
            durable,
            spooled,
            reached: true,
            trouble: None,
        };
        self.sender.send_if_modified(|progress| {
            let changed = *progress != new;
            *progress = new;
            changed
        });
    }
}

impl Drop for ProgressReporter {
    fn drop(&mut self) {
        self.queue.stop(self.stopped.clone());
    }
}
