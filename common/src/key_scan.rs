//! Finds and deletes orphaned keys in Redis, which belong to runs or agents that no longer exist.
//!
//! `SCAN` finds keys in steps of about [`SCAN_STEP_KEYS`], so that no call takes long. The caller
//! decides whether a run exists. How long a key was unused is what Redis reports (`OBJECT
//! IDLETIME`, which neither `SCAN` nor the query itself resets).

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure, Server};
use crate::protocol::keys::{Keys, PERSISTER_GROUP, RunKeys, Slot};
use crate::scripts::call;

static REMOVE_IDLE_CONSUMERS_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/remove_idle_consumers.lua")));

/// The `COUNT` of one `SCAN`: about as many keys as one step examines.
pub const SCAN_STEP_KEYS: usize = 500;

/// The result of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanStep {
    /// Cursor of the next step; 0 after the last.
    pub next: u64,
    /// Runs that have keys, without duplicates.
    pub runs: Vec<Uuid>,
    /// Keys of agents.
    pub agents: Vec<String>,
    /// Keys in the places of runs and agents that hold no id, which a publisher may have written.
    pub invalid: Vec<Vec<u8>>,
}

/// Scans the next keys of one server from a cursor; the first step starts at 0.
pub async fn step(server: &Server, keys: &Keys, cursor: u64) -> Result<ScanStep, RedisFailure> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(keys.all());
    command.arg("COUNT").arg(SCAN_STEP_KEYS);
    let (next, names): (u64, Vec<Vec<u8>>) = server.query(&command).await?;
    let mut step = ScanStep {
        next,
        ..ScanStep::default()
    };
    for name in names {
        if let Some(run) = keys.parse_run(&name) {
            step.runs.push(run);
        } else if let Some(agent) = keys.parse_agent(&name) {
            step.agents.push(agent.to_owned());
        } else if keys.is_invalid(&name) {
            step.invalid.push(name);
        }
    }
    step.runs.sort_unstable();
    step.runs.dedup();
    Ok(step)
}

/// Deletes all keys of a run if none of its streams was used for `unused`. Returns whether it did.
/// Safe to repeat.
pub async fn remove_run(
    redis: &Redis,
    run: &RunKeys,
    unused: Duration,
) -> Result<bool, RedisFailure> {
    // Meta decides only where no stream exists: the persister reads the meta of every run in the
    // ready queue, which resets its idle time.
    let mut found = false;
    for key in [&run.stream, &run.control, &run.wake] {
        if let Some(idle) = idle(redis, key).await? {
            found = true;
            if idle < unused {
                return Ok(false);
            }
        }
    }
    if !found
        && idle(redis, &run.meta)
            .await?
            .is_none_or(|idle| idle < unused)
    {
        return Ok(false);
    }
    let mut command = redis::cmd("UNLINK");
    command.arg(&[&run.stream, &run.meta, &run.control, &run.wake]);
    Ok(redis.query::<u64>(run.slot, &command).await? > 0)
}

/// Deletes a key of an agent that has no time to live and was not used for `unused`. Returns
/// whether it did. Safe to repeat.
pub async fn remove_agent(
    redis: &Redis,
    key: &str,
    unused: Duration,
) -> Result<bool, RedisFailure> {
    let ttl_ms: i64 = redis
        .query(Slot::of(key), redis::cmd("PTTL").arg(key))
        .await?;
    if ttl_ms != -1 || idle(redis, key).await?.is_none_or(|idle| idle < unused) {
        return Ok(false);
    }
    let deleted: u64 = redis
        .query(Slot::of(key), redis::cmd("UNLINK").arg(key))
        .await?;
    Ok(deleted > 0)
}

/// Deletes a key that holds no id if it was not used for `unused`. Returns whether it did. Safe to
/// repeat.
pub async fn remove_invalid(
    redis: &Redis,
    key: &[u8],
    unused: Duration,
) -> Result<bool, RedisFailure> {
    let slot = Slot::of_bytes(key);
    let mut command = redis::cmd("OBJECT");
    command.arg("IDLETIME").arg(key);
    let seconds: Option<u64> = redis.query(slot, &command).await?;
    if seconds.is_none_or(|seconds| Duration::from_secs(seconds) < unused) {
        return Ok(false);
    }
    let deleted: u64 = redis.query(slot, redis::cmd("UNLINK").arg(key)).await?;
    Ok(deleted > 0)
}

/// Removes persisters from the consumer group of a ready stream that were idle for `silent` and
/// have no pending entries. Returns their names. Safe to repeat.
pub async fn remove_consumers(
    redis: &Redis,
    ready: &str,
    silent: Duration,
) -> Result<Vec<String>, RedisFailure> {
    let mut command = redis::cmd("EVALSHA");
    command
        .arg(REMOVE_IDLE_CONSUMERS_SCRIPT.get_hash())
        .arg(1)
        .arg(ready);
    command
        .arg(PERSISTER_GROUP)
        .arg(silent.as_millis().to_string());
    redis
        .run(Slot::of(ready), async |connection| {
            let reply: Value = call(&REMOVE_IDLE_CONSUMERS_SCRIPT, &command, connection).await?;
            Ok(redis::from_redis_value(reply)?)
        })
        .await
}

/// How long a key was unused; `None` if it does not exist.
async fn idle(redis: &Redis, key: &str) -> Result<Option<Duration>, RedisFailure> {
    let mut command = redis::cmd("OBJECT");
    command.arg("IDLETIME").arg(key);
    let seconds: Option<u64> = redis.query(Slot::of(key), &command).await?;
    Ok(seconds.map(Duration::from_secs))
}
