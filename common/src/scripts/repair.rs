//! Calls of `repair.lua`: a persister removes from a run what no script of ours has written.

use std::sync::LazyLock;

use redis::RedisError;
use redis::aio::ConnectionLike;

use super::evalsha::call;
use crate::protocol::event_id::EventId;
use crate::protocol::keys::RunKeys;

static REPAIR_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("repair.lua")));

/// What a repair has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// Keys of another type.
    pub wrong_keys: u64,
    /// The stream, because its ids had passed the last id of the run.
    pub has_removed_stream: bool,
}

/// Repairs a run of which Postgres holds the events up to `watermark`. Safe to repeat.
pub async fn repair<C: ConnectionLike>(
    keys: &RunKeys,
    watermark: EventId,
    connection: &mut C,
) -> Result<Repaired, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(REPAIR_SCRIPT.get_hash()).arg(3);
    command.arg(&keys.stream).arg(&keys.meta).arg(&keys.control);
    command.arg(watermark.to_string());
    let reply = call(&REPAIR_SCRIPT, &command, connection).await?;
    let (wrong_keys, streams): (u64, u64) = redis::from_redis_value(reply)?;
    Ok(Repaired {
        wrong_keys,
        has_removed_stream: streams > 0,
    })
}

/// Queues a run for the persisters, which repair it if it needs that. For callers to which Redis
/// has refused an append although it answers.
pub async fn request_repair<C: ConnectionLike>(
    keys: &RunKeys,
    connection: &mut C,
) -> Result<(), RedisError> {
    let mut queue = redis::cmd("XADD");
    queue.arg(&keys.ready).arg("*");
    queue.arg("run").arg(keys.run.to_string());
    queue.exec_async(connection).await
}
