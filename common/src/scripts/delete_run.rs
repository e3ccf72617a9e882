//! Calls of `delete_run.lua`: a deleted run leaves Redis, and a mark stays.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::evalsha::{call, evalsha, unexpected_reply};
use crate::protocol::keys::{PERSISTER_GROUP, RunKeys};

static DELETE_RUN_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("delete_run.lua")));

/// How long Redis remembers that a run was deleted: longer than any weekend that an agent without
/// network may take. An append after that is removed by the persister, which asks Postgres.
const DELETED_MARK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Removes all keys of a run, marks it as deleted, takes these agents out of the heartbeats of its
/// partition, and acknowledges these ready entries. Safe to repeat.
pub async fn delete_run<C: ConnectionLike>(
    keys: &RunKeys,
    ready_ids: &[String],
    agents: &[Uuid],
    connection: &mut C,
) -> Result<(), RedisError> {
    let heartbeats = &keys.heartbeat_keys;
    let more = [
        keys.control.as_str(),
        &heartbeats.last_heartbeats,
        &heartbeats.returned,
        &keys.wake,
    ];
    let mut command = evalsha(&DELETE_RUN_SCRIPT, keys, &more);
    command
        .arg(DELETED_MARK_LIFE.as_secs())
        .arg(PERSISTER_GROUP)
        .arg(ready_ids.len())
        .arg(ready_ids);
    for agent in agents {
        command.arg(agent.to_string());
    }
    match call(&DELETE_RUN_SCRIPT, &command, connection).await? {
        Value::Int(1) => Ok(()),
        _ => Err(unexpected_reply("delete_run")),
    }
}
