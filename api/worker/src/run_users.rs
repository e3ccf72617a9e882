//! Removes the Redis users of agents whose token has ended: by itself, with its parent, or with its
//! run, which is sealed or deleted.
//!
//! A gateway that revokes a token removes its user at once; this finds the others, and what that
//! gateway could not do. Each user is checked every
//! [`CHECK_INTERVAL`](runcast_common::run_users::CHECK_INTERVAL), by one of the workers. A user
//! that is not written down, since Redis lost its data, is found by the hourly job
//! ([`remove_unknown`]).
//!
//! An agent that is still at work is refused by Redis then, and publishes through the gateway, or
//! gets another user if its token is valid.

use std::collections::HashSet;
use std::time::Duration;

use runcast_common::connect::RedisFailure;
use runcast_common::protocol::keys::PARTITION_COUNT;
use runcast_common::run_users::{MAX_CALL_USERS, RunUser, RunUsers};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::error::TaskError;
use crate::worker::Worker;

/// Between two looks for users that are due.
const INTERVAL: Duration = Duration::from_secs(5);

/// Checks users until `stop`.
pub(crate) async fn check_users(
    worker: &Worker,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let users = users(worker);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let mut due = Vec::new();
        for partition in 0..PARTITION_COUNT {
            due.extend(users.take_due(partition).await?);
        }
        for due in due.chunks(MAX_CALL_USERS) {
            remove_ended(worker, &users, due).await?;
        }
    }
    Ok(())
}

async fn remove_ended(worker: &Worker, users: &RunUsers, due: &[RunUser]) -> Result<(), TaskError> {
    let ended = ended_among(worker, due).await?;
    unless_refused(users.forget(&ended).await)
}

/// Removes the users that are not of tokens in use, whether or not they are written down.
pub(crate) async fn remove_unknown(worker: &Worker) -> Result<(), TaskError> {
    let users = users(worker);
    let listed = match users.listed().await {
        Ok(listed) => listed,
        Err(error) => return unless_refused(Err(error)),
    };
    for listed in listed.chunks(MAX_CALL_USERS) {
        remove_ended(worker, &users, listed).await?;
    }
    Ok(())
}

/// Those of these users whose token is not in use.
async fn ended_among(worker: &Worker, users: &[RunUser]) -> Result<Vec<RunUser>, TaskError> {
    let tokens: Vec<(Uuid, [u8; 8])> = users.iter().map(|user| (user.run, user.token)).collect();
    let in_use = worker.store.tokens_in_use(&tokens).await?;
    let in_use: HashSet<(Uuid, [u8; 8])> = in_use.into_iter().collect();
    let ended = users
        .iter()
        .filter(|user| !in_use.contains(&(user.run, user.token)));
    Ok(ended.copied().collect())
}

fn users(worker: &Worker) -> RunUsers {
    RunUsers::new(worker.redis.clone(), worker.keys.clone())
}

/// Where the services may not manage users there are none.
fn unless_refused(done: Result<(), RedisFailure>) -> Result<(), TaskError> {
    match done {
        Err(error) if !error.is_outage() => {
            debug!(%error, "cannot manage the Redis users of agents");
            Ok(())
        }
        done => Ok(done?),
    }
}
