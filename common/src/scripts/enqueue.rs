//! Calls of `enqueue.lua`: a persister puts a run into the ready queue for an agent that may not, a
//! worker one of which Postgres has lost events.

use std::sync::LazyLock;

use redis::RedisError;
use redis::aio::ConnectionLike;

use super::evalsha::{call, evalsha};
use crate::protocol::keys::RunKeys;

static ENQUEUE_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("enqueue.lua")));

/// Why a run may have to enter the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnqueueReason {
    /// Its wake key was changed.
    Woken,
    /// A change of its wake key may have been missed.
    Sweep,
    /// Postgres lacks events that Redis holds.
    Behind,
}

/// Queues a run that has unstored events, unless that is done already. Returns whether it did. Safe
/// to repeat.
pub async fn enqueue<C: ConnectionLike>(
    keys: &RunKeys,
    reason: EnqueueReason,
    connection: &mut C,
) -> Result<bool, RedisError> {
    let mut command = evalsha(&ENQUEUE_SCRIPT, keys, &[]);
    command.arg(match reason {
        EnqueueReason::Woken => "woken",
        EnqueueReason::Sweep => "sweep",
        EnqueueReason::Behind => "behind",
    });
    let reply = call(&ENQUEUE_SCRIPT, &command, connection).await?;
    Ok(redis::from_redis_value(reply)?)
}
