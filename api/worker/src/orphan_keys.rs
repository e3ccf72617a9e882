//! The job that takes away what Redis holds of runs that do not exist (retention removed them, or a
//! database was restored), keys of agents without a time to live, and persisters that are gone.
//!
//! A run's row is committed before anybody is told its id, so a key whose run Postgres does not know
//! is an orphan. It goes only if the run is older than [`GRACE`] and nobody has used its keys for as
//! long: a database that was restored from yesterday can still be put right.

use std::collections::HashSet;
use std::time::Duration;

use chrono::Utc;
use runcast_common::connect::Server;
use runcast_common::key_scan;
use runcast_common::protocol::keys::PARTITIONS;
use tracing::info;
use uuid::Uuid;

use crate::context::Worker;
use crate::error::TaskError;

/// How old and how unused a leftover must be.
const GRACE: Duration = Duration::from_secs(3600);

/// Pause between two steps through the keys, so that others have Redis in between.
const PAUSE: Duration = Duration::from_millis(5);

/// Goes through all keys once.
///
/// # Errors
/// [`TaskError`]; what was removed until then stays so.
pub(super) async fn remove(worker: &Worker) -> Result<(), TaskError> {
    for server in worker.redis.masters().await? {
        remove_keys(worker, &server).await?;
    }
    for partition in 0..PARTITIONS {
        let ready = worker.keys.ready(partition);
        for name in key_scan::remove_consumers(&worker.redis, &ready, GRACE).await? {
            info!(
                name,
                partition, "took a persister that is gone off the line"
            );
        }
    }
    Ok(())
}

/// Goes through the keys of one server.
async fn remove_keys(worker: &Worker, server: &Server) -> Result<(), TaskError> {
    let mut from = 0;
    loop {
        let step = key_scan::step(server, &worker.keys, from).await?;
        let old: Vec<Uuid> = step.runs.into_iter().filter(|run| is_old(*run)).collect();
        if !old.is_empty() {
            let exist = worker.store.existing_runs(&old).await?;
            let exist: HashSet<Uuid> = exist.into_iter().collect();
            for run in old.into_iter().filter(|run| !exist.contains(run)) {
                let keys = worker.keys.run(run);
                if key_scan::remove_run(&worker.redis, &keys, GRACE).await? {
                    info!(%run, "removed the keys of a run that does not exist");
                }
            }
        }
        for agent in step.agents {
            if key_scan::remove_agent(&worker.redis, &agent, GRACE).await? {
                info!(key = agent, "removed what an agent had left");
            }
        }
        from = step.next;
        if from == 0 {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// True for a run that was created longer than [`GRACE`] ago; an id that tells no time counts as old.
fn is_old(run: Uuid) -> bool {
    let created = run.get_timestamp().map_or(0, |time| time.to_unix().0);
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    now.saturating_sub(created) > GRACE.as_secs()
}
