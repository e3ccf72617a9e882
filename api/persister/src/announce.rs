//! Announces committed status changes, and runs that came back after being lost.
//!
//! These are hints: a failure is only logged, since Postgres holds the truth. Viewers of a run see
//! status changes as its events, so only changes that are no event are published to them here.

use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::presence::liveness;
use runcast_common::presence::run_update::{self, RunUpdate};
use runcast_common::protocol::keys::Keys;
use runcast_common::redis::cmd;
use tracing::{debug, info};

pub(crate) async fn announce(redis: &Redis, keys: &Keys, updates: &[RunUpdate]) {
    if let Err(error) = publish(redis, keys, updates).await {
        debug!(%error, "cannot announce status changes");
    }
}

async fn publish(redis: &Redis, keys: &Keys, updates: &[RunUpdate]) -> Result<(), RedisFailure> {
    for update in updates.iter().filter(|update| !update.agents.is_empty()) {
        info!(run = %update.run, status = update.status, "a lost agent has published again");
        // From now on its silence counts again, even if it never sends a heartbeat.
        let agents: Vec<_> = update.agents.iter().map(|agent| agent.agent).collect();
        let run = keys.run(update.run);
        let time = cmd("TIME");
        let (seconds, _): (u64, u64) = redis.query(run.slot, &time).await?;
        liveness::assume_alive(redis, &run.heartbeat_keys, &agents, seconds * 1000).await?;
        run_update::publish_to_viewers(redis, keys, update).await?;
    }
    run_update::publish_to_feed(redis, keys, updates).await
}
