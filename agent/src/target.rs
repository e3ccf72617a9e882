//! Where a publisher publishes, and what may be chosen about it.

use runcast_common::config::RedisUrl;
use runcast_common::script::Cap;
use uuid::Uuid;

/// Where to publish: one variation of a run, and the Redis that carries it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub redis: RedisUrl,
    /// What stands in front of every key there; mostly empty.
    pub prefix: String,
    /// The run.
    pub run: Uuid,
    /// Which of its attempts.
    pub variation: u16,
}

/// What may be chosen about a publisher.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory for events that Postgres does not hold yet.
    pub backlog_bytes: usize,
    /// What the run may hold in Redis before this publisher waits.
    pub cap: Cap,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog_bytes: crate::backlog::DEFAULT_BYTES,
            cap: Cap::default(),
        }
    }
}
