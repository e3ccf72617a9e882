//! Trims the live window of idle runs while Redis exceeds its memory budget.
//!
//! A run that publishes gets its smaller window when it is settled. An idle run has no cycle in
//! which that could happen: without this, a Redis that is full of stored events would refuse
//! producers for as long as the last of those streams lives. A round goes through all keys by
//! `SCAN`, for [`ROUND_DEADLINE`] at most. It settles runs that hold more than the smaller window
//! once more, with the watermark that Redis already has, and leaves runs with unstored events to
//! their cycles.
//!
//! Bounds: [`MAX_CONCURRENT_CALLS`] calls in progress.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::{LiveWindow, Settle};
use runcast_common::{key_scan, redis};
use tokio::time::timeout;
use tracing::{debug, info};
use uuid::Uuid;

/// Longest time of one round; what it did not reach waits for the next one.
const ROUND_DEADLINE: Duration = Duration::from_secs(10);

/// Calls in progress at the same time.
const MAX_CONCURRENT_CALLS: usize = 32;

/// Trims what idle runs keep in Redis to this window.
///
/// # Errors
/// [`RedisFailure`] if Redis cannot be reached; runs that were trimmed until then stay so.
pub(crate) async fn trim_idle_runs(
    redis: &Redis,
    keys: &Keys,
    window: LiveWindow,
) -> Result<(), RedisFailure> {
    let mut trimmed = 0_usize;
    let round = trim_all(redis, keys, window, &mut trimmed);
    let done = timeout(ROUND_DEADLINE, round).await;
    if trimmed > 0 {
        info!(
            runs = trimmed,
            "trimmed the live window of idle runs: Redis is over its budget"
        );
    }
    done.unwrap_or(Ok(()))
}

async fn trim_all(
    redis: &Redis,
    keys: &Keys,
    window: LiveWindow,
    trimmed: &mut usize,
) -> Result<(), RedisFailure> {
    for server in redis.masters().await? {
        let mut from = 0;
        loop {
            let step = key_scan::step(&server, keys, from).await?;
            let runs = stream::iter(step.runs).map(|run| trim(redis, keys, run, window));
            let done: Vec<Result<bool, RedisFailure>> =
                runs.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await;
            for done in done {
                match done {
                    Ok(is_trimmed) => *trimmed += usize::from(is_trimmed),
                    Err(error) if error.is_outage() => return Err(error),
                    // Keys of this run are of another type; the others are trimmed.
                    Err(error) => debug!(%error, "cannot trim a run"),
                }
            }
            from = step.next;
            if from == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Trims one run if it is idle and holds more than the window; returns whether it did.
async fn trim(
    redis: &Redis,
    keys: &Keys,
    run: Uuid,
    window: LiveWindow,
) -> Result<bool, RedisFailure> {
    let keys = keys.run(run);
    let mut command = redis::cmd("HMGET");
    command.arg(&keys.meta);
    command.arg(&["watermark", "dirty", "bytes", "freed"]);
    let meta: [Option<String>; 4] = redis.query(keys.slot, &command).await?;
    let [watermark, dirty, bytes, freed] = meta;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let in_redis = number(bytes).saturating_sub(number(freed));
    let watermark: Option<EventId> = watermark.and_then(|text| text.parse().ok());
    let Some(watermark) = watermark.filter(|_| dirty.is_none() && in_redis > window.bytes) else {
        return Ok(false);
    };
    let settle = Settle {
        watermark,
        sealed: None,
        ready_ids: &[],
        durable: &[],
        window,
    };
    let settled = redis.run(keys.slot, async |connection| {
        settle.call(&keys, connection).await
    });
    settled.await?;
    Ok(true)
}
