//! What may be left in Redis by what is no more, and how it is found and taken away.
//!
//! Keys are found by `SCAN` in steps of [`KEYS_PER_STEP`], so that no call takes long. Nothing here decides
//! whether a run exists; how long a key was not used is Redis' own knowledge (`OBJECT IDLETIME`, which
//! neither `SCAN` nor asking for it changes).

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure, Server};
use crate::protocol::keys::{Keys, PERSISTERS, RunKeys, Slot};
use crate::scripts::call;

static CONSUMERS: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/remove_idle_consumers.lua")));

/// Keys that one step looks at, more or less.
pub const KEYS_PER_STEP: usize = 500;

/// What one step found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanStep {
    /// Where the next step begins; 0 after the last.
    pub next: u64,
    /// Runs that have keys, each once.
    pub runs: Vec<Uuid>,
    /// Keys of agents.
    pub agents: Vec<String>,
}

/// Looks at the next keys of one server; the first step begins at 0.
///
/// # Errors
/// The connection's own.
pub async fn step(server: &Server, keys: &Keys, from: u64) -> Result<ScanStep, RedisFailure> {
    let mut command = redis::cmd("SCAN");
    command.arg(from).arg("MATCH").arg(keys.all());
    command.arg("COUNT").arg(KEYS_PER_STEP);
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
        }
    }
    step.runs.sort_unstable();
    step.runs.dedup();
    Ok(step)
}

/// Takes away all keys of a run if none of its streams was used for so long; says whether it did.
///
/// # Errors
/// The connection's own; calling it again is safe.
pub async fn remove_run(
    redis: &Redis,
    run: &RunKeys,
    unused: Duration,
) -> Result<bool, RedisFailure> {
    // The persister asks for a run's meta whenever it stands in line, even if it does not exist.
    let mut found = false;
    for key in [&run.stream, &run.control] {
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
    command.arg(&[&run.stream, &run.meta, &run.control]);
    Ok(redis.query::<u64>(run.slot, &command).await? > 0)
}

/// Takes away a key of an agent that lacks its time to live and was not used for so long.
///
/// # Errors
/// The connection's own; calling it again is safe.
pub async fn remove_agent(
    redis: &Redis,
    key: &str,
    unused: Duration,
) -> Result<bool, RedisFailure> {
    let left: i64 = redis
        .query(Slot::of(key), redis::cmd("PTTL").arg(key))
        .await?;
    if left != -1 || idle(redis, key).await?.is_none_or(|idle| idle < unused) {
        return Ok(false);
    }
    let gone: u64 = redis
        .query(Slot::of(key), redis::cmd("UNLINK").arg(key))
        .await?;
    Ok(gone > 0)
}

/// Takes persisters off a ready stream that were silent for so long and left nothing pending.
///
/// # Errors
/// The connection's own; calling it again is safe.
pub async fn remove_consumers(
    redis: &Redis,
    ready: &str,
    silent: Duration,
) -> Result<Vec<String>, RedisFailure> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(CONSUMERS.get_hash()).arg(1).arg(ready);
    command.arg(PERSISTERS).arg(silent.as_millis().to_string());
    redis
        .run(Slot::of(ready), async |connection| {
            let reply: Value = call(&CONSUMERS, &command, connection).await?;
            Ok(redis::from_redis_value(reply)?)
        })
        .await
}

/// For how long a key was not used; none if it does not exist.
async fn idle(redis: &Redis, key: &str) -> Result<Option<Duration>, RedisFailure> {
    let mut command = redis::cmd("OBJECT");
    command.arg("IDLETIME").arg(key);
    let seconds: Option<u64> = redis.query(Slot::of(key), &command).await?;
    Ok(seconds.map(Duration::from_secs))
}
