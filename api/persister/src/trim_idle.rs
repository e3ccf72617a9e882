//! Takes back what Redis keeps for viewers of idle runs, while it is over its budget.
//!
//! A run with a turn gets its smaller window with it. An idle one has no turn: without this, a Redis that
//! is full of what is stored would refuse producers for as long as its last streams live. All keys are gone
//! through by `SCAN`, for [`DEADLINE`] at most; runs that hold more than the smaller window are settled once
//! more, with the watermark that Redis was told. Runs with unstored events are left to their turn.
//!
//! Bounds: [`AT_ONCE`] calls under way.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::{Settle, Window};
use runcast_common::{key_scan, redis};
use tokio::time::timeout;
use tracing::info;
use uuid::Uuid;

/// Longest time of one round; what it did not come to waits for the next one.
const DEADLINE: Duration = Duration::from_secs(10);

/// Calls under way at the same time.
const AT_ONCE: usize = 32;

/// Cuts what idle runs keep to this window.
///
/// # Errors
/// [`RedisFailure`] if Redis cannot be reached; what was taken back until then is.
pub(super) async fn take_back(
    redis: &Redis,
    keys: &Keys,
    window: Window,
) -> Result<(), RedisFailure> {
    let mut cut = 0_usize;
    let done = timeout(DEADLINE, all(redis, keys, window, &mut cut)).await;
    if cut > 0 {
        info!(
            runs = cut,
            "idle runs keep less for viewers: Redis is over its budget"
        );
    }
    done.unwrap_or(Ok(()))
}

async fn all(
    redis: &Redis,
    keys: &Keys,
    window: Window,
    cut: &mut usize,
) -> Result<(), RedisFailure> {
    for server in redis.masters().await? {
        let mut from = 0;
        loop {
            let step = key_scan::step(&server, keys, from).await?;
            let runs = stream::iter(step.runs).map(|run| one(redis, keys, run, window));
            let done: Vec<bool> = runs.buffer_unordered(AT_ONCE).try_collect().await?;
            *cut += done.into_iter().filter(|cut| *cut).count();
            from = step.next;
            if from == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Cuts one run, if it is idle and holds too much; says whether it did.
async fn one(redis: &Redis, keys: &Keys, run: Uuid, window: Window) -> Result<bool, RedisFailure> {
    let keys = keys.run(run);
    let mut command = redis::cmd("HMGET");
    command.arg(&keys.meta);
    command.arg(&["watermark", "dirty", "bytes", "freed"]);
    let meta: [Option<String>; 4] = redis.query(keys.slot, &command).await?;
    let [watermark, dirty, bytes, freed] = meta;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let held = number(bytes).saturating_sub(number(freed));
    let watermark: Option<EventId> = watermark.and_then(|text| text.parse().ok());
    let Some(watermark) = watermark.filter(|_| dirty.is_none() && held > window.bytes) else {
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
