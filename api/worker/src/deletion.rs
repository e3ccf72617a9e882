//! The job that removes what is left of a deleted run, and the hourly job that queues it again if
//! it did not finish.
//!
//! The run itself is gone by then, so there are no readers: first its keys leave Redis, so that its
//! agents stop; then viewers are told once more, in case the gateway died before it could; then the
//! rows of its events go, and its objects in the archive. Every step may be repeated. An object of
//! an attempt to archive that may still be writing is deleted again a day later, and the deletion
//! is not finished before.
//!
//! Bounds: one run at a time in each worker, [`MAX_SCHEDULED_RUNS`] in one hour.

use runcast_common::run_deletion;
use tracing::{debug, info};
use uuid::Uuid;

use crate::archive;
use crate::error::TaskError;
use crate::worker::Worker;
use runcast_store::deletion::DELETE_RUN;

/// Deletions that get another job in one hour.
const MAX_SCHEDULED_RUNS: u32 = 10_000;

/// The hourly job.
pub(crate) async fn schedule_unfinished(worker: &Worker) -> Result<(), TaskError> {
    let runs = worker
        .store
        .unfinished_deletions(MAX_SCHEDULED_RUNS)
        .await?;
    if !runs.is_empty() {
        worker.store.schedule_runs(DELETE_RUN, &runs).await?;
    }
    Ok(())
}

/// Removes what is left of a deleted run.
pub(crate) async fn remove_rest(worker: &Worker, run: Uuid) -> Result<(), TaskError> {
    let (store, redis, keys) = (&worker.store, &worker.redis, &worker.keys);
    let Some(deleted) = store.deleted_run(run).await? else {
        return Ok(());
    };
    run_deletion::remove_keys(redis, keys, run, &[], &deleted.agents).await?;
    if let Err(error) = run_deletion::announce(redis, keys, run).await {
        debug!(%run, %error, "cannot announce that a run was deleted");
    }
    let rows = store.remove_rows_of(run).await?;
    archive::delete_leaving_objects(worker, Some(run)).await?;
    if store.finish_deletion(run).await? {
        info!(%run, rows, "nothing is left of a deleted run");
    } else {
        info!(%run, rows, "removed a deleted run, but for objects of the archive");
    }
    Ok(())
}
