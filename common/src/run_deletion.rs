//! Deletes what Redis holds of a run, and announces it. Postgres holds which runs are deleted; this
//! follows it, and may be repeated at any time.
//!
//! Bounds: one call for the run, two for each of its agents.

use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::presence::run_update::{self, RunUpdate};
use crate::protocol::keys::{Keys, Slot};
use crate::scripts;

/// Removes all keys of a deleted run, and the descriptions and heartbeats of these agents. From
/// then on producers of the run are refused. `ready_ids` are entries of the ready queue that the
/// caller has taken.
pub async fn remove_keys(
    redis: &Redis,
    keys: &Keys,
    run: Uuid,
    ready_ids: &[String],
    agents: &[Uuid],
) -> Result<(), RedisFailure> {
    let run_keys = keys.run(run);
    redis
        .run(run_keys.slot, async |connection| {
            scripts::delete_run(&run_keys, ready_ids, agents, connection).await
        })
        .await?;
    for agent in agents {
        for key in [keys.agent(*agent), keys.heartbeat(*agent)] {
            let mut command = redis::cmd("UNLINK");
            command.arg(&key);
            redis.query::<u64>(Slot::of(&key), &command).await?;
        }
    }
    Ok(())
}

/// Tells viewers of the run and of the feed that it is deleted.
pub async fn announce(redis: &Redis, keys: &Keys, run: Uuid) -> Result<(), RedisFailure> {
    let update = RunUpdate::deleted(run);
    run_update::publish_to_viewers(redis, keys, &update).await?;
    run_update::publish_to_feed(redis, keys, &[update]).await
}
