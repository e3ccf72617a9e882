//! The job that removes what Redis should no longer hold: keys of runs that do not exist (retention
//! removed them, or a database was restored), keys of agents without a time to live, and consumers
//! of persisters that are gone, keys in the places of runs and agents that hold no valid id, and
//! Redis users of tokens that have ended.
//!
//! A run's row is committed before its id is returned, so a key whose run Postgres does not know is
//! an orphan. It is removed only if the run is older than [`MIN_AGE`] and its keys were not used
//! for as long: if a database was restored from yesterday, the mistake can still be corrected.
//!
//! Bounds: one step of `SCAN` at a time, with [`STEP_PAUSE`] between two of them.

use std::collections::HashSet;
use std::time::Duration;

use chrono::Utc;
use runcast_common::connect::Server;
use runcast_common::key_scan;
use runcast_common::log_limit::LogLimit;
use runcast_common::protocol::keys::PARTITION_COUNT;
use tracing::{debug, info};
use uuid::Uuid;

use crate::error::TaskError;
use crate::run_users;
use crate::worker::Worker;

/// How old, and for how long unused, keys and consumers must be.
const MIN_AGE: Duration = Duration::from_secs(3600);

/// Pause between two steps of a scan, so that other clients have Redis in between.
const STEP_PAUSE: Duration = Duration::from_millis(5);

static INVALID_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// Scans all keys once, and removes the orphans.
pub(crate) async fn remove_orphans(worker: &Worker) -> Result<(), TaskError> {
    for server in worker.redis.masters().await? {
        remove_keys(worker, &server).await?;
    }
    run_users::remove_unknown(worker).await?;
    for partition in 0..PARTITION_COUNT {
        let ready = worker.keys.ready(partition);
        let removed = match key_scan::remove_consumers(&worker.redis, &ready, MIN_AGE).await {
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(error) => {
                debug!(%error, partition, "cannot look for consumers; persisters repair the key");
                continue;
            }
            Ok(removed) => removed,
        };
        for name in removed {
            info!(
                name,
                partition, "removed the consumer of a persister that is gone"
            );
        }
    }
    Ok(())
}

/// Scans the keys of one server.
async fn remove_keys(worker: &Worker, server: &Server) -> Result<(), TaskError> {
    let mut from = 0;
    loop {
        let step = key_scan::step(server, &worker.keys, from).await?;
        let old: Vec<Uuid> = step.runs.into_iter().filter(|run| is_old(*run)).collect();
        if !old.is_empty() {
            // A deleted run keeps the mark that it is deleted, which expires by itself.
            let mut known = worker.store.existing_runs(&old).await?;
            known.extend(worker.store.deleted_among(&old).await?);
            let known: HashSet<Uuid> = known.into_iter().collect();
            for run in old.into_iter().filter(|run| !known.contains(run)) {
                let keys = worker.keys.run(run);
                if key_scan::remove_run(&worker.redis, &keys, MIN_AGE).await? {
                    info!(%run, "removed the keys of a run that does not exist");
                }
            }
        }
        for agent in step.agents {
            if key_scan::remove_agent(&worker.redis, &agent, MIN_AGE).await? {
                info!(key = agent, "removed the keys of an agent that is gone");
            }
        }
        for key in step.invalid {
            if key_scan::remove_invalid(&worker.redis, &key, MIN_AGE).await? {
                worker.metrics.count_removed_key();
                if let Some(keys) = INVALID_LOG.admit(1) {
                    let key = String::from_utf8_lossy(&key[..key.len().min(100)]);
                    info!(%key, keys, "removed a key that holds no id");
                }
            }
        }
        from = step.next;
        if from == 0 {
            return Ok(());
        }
        tokio::time::sleep(STEP_PAUSE).await;
    }
}

/// Whether a run was created longer than [`MIN_AGE`] ago. An id without a time counts as old.
fn is_old(run: Uuid) -> bool {
    let created = run.get_timestamp().map_or(0, |time| time.to_unix().0);
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    now.saturating_sub(created) > MIN_AGE.as_secs()
}
