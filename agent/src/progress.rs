//! What the sending task tells those who publish: how far it has come, and that it has ended.

use std::sync::Arc;

use crate::outcome::Stopped;
use crate::queue::Queue;

/// How far the publisher has come, for those who wait for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Highest seq that Redis has acknowledged.
    pub(crate) acked: u64,
    /// Highest seq that Postgres holds.
    pub(crate) durable: u64,
    /// Highest seq up to which everything that is not durable is in the spool.
    pub(crate) spooled: u64,
    /// True once the server has answered a call of the script.
    pub(crate) reached: bool,
    /// What stands in the way at the moment.
    pub(crate) trouble: Option<String>,
}

/// Tells those who publish when the task ends, in whatever way it does: by a panic too.
pub(crate) struct LastWord {
    pub(crate) queue: Arc<Queue>,
    pub(crate) why: Stopped,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        self.queue.stop(self.why.clone());
    }
}
