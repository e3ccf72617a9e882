//! Calls of `cap.lua`: a persister limits a run while Redis exceeds its memory budget.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};

use super::evalsha::{call, unexpected_reply};
use crate::protocol::keys::RunKeys;

static CAP_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("cap.lua")));

/// Limits a run to `bytes` of bodies in Redis, for `ttl`. Returns false if Redis does not know the
/// run.
pub async fn cap<C: ConnectionLike>(
    keys: &RunKeys,
    bytes: u64,
    ttl: Duration,
    connection: &mut C,
) -> Result<bool, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(CAP_SCRIPT.get_hash()).arg(1).arg(&keys.meta);
    command.arg(bytes).arg(ttl.as_millis().to_string());
    match call(&CAP_SCRIPT, &command, connection).await? {
        Value::Int(known) => Ok(known == 1),
        _ => Err(unexpected_reply("cap")),
    }
}
