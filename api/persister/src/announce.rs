//! What is told after a commit: the new statuses of runs, and that a lost one was heard again.
//!
//! Hints for those who watch, nothing of it is awaited by anybody: a failure is logged, and what is stored is true
//! without it. Viewers see statuses as events of their run, so only what is none is told to them here.

use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::presence::liveness;
use runcast_common::presence::run_update::{self, RunUpdate};
use runcast_common::protocol::keys::Keys;
use runcast_common::redis::cmd;
use tracing::{debug, info};

pub(super) async fn tell(redis: &Redis, keys: &Keys, updates: &[RunUpdate]) {
    if let Err(error) = try_tell(redis, keys, updates).await {
        debug!(%error, "cannot tell what changed");
    }
}

async fn try_tell(redis: &Redis, keys: &Keys, updates: &[RunUpdate]) -> Result<(), RedisFailure> {
    for update in updates.iter().filter(|update| !update.agents.is_empty()) {
        info!(run = %update.run, status = update.status, "a lost agent has published again");
        // From now on its silence counts again, whether it gives signs of life or not.
        let agents: Vec<_> = update.agents.iter().map(|one| one.agent).collect();
        let run = keys.run(update.run);
        let time = cmd("TIME");
        let (seconds, _): (u64, u64) = redis.query(run.slot, &time).await?;
        liveness::expect(redis, &run.fleet, &agents, seconds * 1000).await?;
        run_update::tell(redis, keys, update).await?;
    }
    run_update::announce(redis, keys, updates).await
}
