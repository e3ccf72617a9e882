//! Calls of `check_ready.lua`: a persister removes from a ready stream what no script of ours has
//! written.

use std::sync::LazyLock;

use redis::RedisError;
use redis::aio::ConnectionLike;

use super::evalsha::call;
use crate::protocol::keys::{PARTITION_COUNT, PERSISTER_GROUP};

static CHECK_READY_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("check_ready.lua")));

/// Entries that one call looks at: about a millisecond.
const MAX_CHECKED_ENTRIES: usize = 1000;

/// What one call has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedReady {
    /// What was removed: entries, or the whole key.
    pub removed: u64,
    /// Where the next call begins; empty after the last entry.
    pub next: String,
}

/// Checks entries of the ready stream of a partition. The first call begins at `-`.
pub async fn check_ready<C: ConnectionLike>(
    ready: &str,
    partition: usize,
    from: &str,
    connection: &mut C,
) -> Result<CheckedReady, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(CHECK_READY_SCRIPT.get_hash()).arg(1).arg(ready);
    command
        .arg(PERSISTER_GROUP)
        .arg(partition)
        .arg(PARTITION_COUNT)
        .arg(from)
        .arg(MAX_CHECKED_ENTRIES);
    let reply = call(&CHECK_READY_SCRIPT, &command, connection).await?;
    let (removed, next) = redis::from_redis_value(reply)?;
    Ok(CheckedReady { removed, next })
}
