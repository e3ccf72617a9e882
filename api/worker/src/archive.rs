//! When runs go into the archive, and out of it: three jobs.
//!
//! - `archive`, every hour: gives each run that is due a job of its own, each day with archived rows one, gives up
//!   attempts that nobody can be at work on, and deletes objects that are to go.
//! - `archive_run`: writes the object of one run, reads it back, compares, and passes the run on to it. Any number of
//!   workers do these at once. One that is repeated begins a new object; the one before is deleted in time.
//! - `archive_rows`: drops the rows of a day, [`ROWS_AFTER`] after the last of its runs was archived, so that the
//!   partition can be emptied at once where all of the day is.

use std::time::Duration;

use chrono::NaiveDate;
use tokio::time::timeout;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::context::Worker;
use crate::error::TaskError;
use runcast_history::archive::object_store::{ArchiveStore, object_name};
use runcast_history::archive::writer::{self, ATTEMPT_DEADLINE, WriteError};
use runcast_store::archive_cleanup::Dropped;
use runcast_store::archives::Leaving;

/// Runs that are given a job in one hour: more than are written in one.
const MOST_RUNS: u32 = 10_000;

/// Pause between the last run of a day that is archived and the end of the day's rows, unless runs are archived
/// sooner than that.
const ROWS_AFTER: Duration = Duration::from_secs(300);

/// Objects looked up at once for deletion.
const PAGE: u32 = 100;

/// What is due in this hour.
///
/// # Errors
/// [`TaskError`]; what was done until then stays so.
pub(super) async fn round(worker: &Worker) -> Result<(), TaskError> {
    let (store, archiving) = (&worker.store, &worker.rules.archiving);
    let given_up = store.give_up_attempts(ATTEMPT_DEADLINE).await?;
    if given_up > 0 {
        warn!(given_up, "attempts to archive a run came to no end");
    }
    if archiving.place.is_some() {
        let runs = store
            .runs_to_archive(archiving.after.duration(), MOST_RUNS)
            .await?;
        if !runs.is_empty() {
            info!(runs = runs.len(), "runs are to be archived");
            store.schedule_runs(super::jobs::ARCHIVE_RUN, &runs).await?;
        }
    }
    for day in store.days_with_archived_rows().await? {
        store.schedule_day(day).await?;
    }
    delete_leaving(worker).await
}

/// Archives a run, if it is still due.
///
/// # Errors
/// [`TaskError`]; its rows are then where they were.
pub(super) async fn archive_run(worker: &Worker, run: Uuid) -> Result<(), TaskError> {
    let archiving = &worker.rules.archiving;
    let Some(place) = &archiving.place else {
        return Ok(());
    };
    let outcome = timeout(ATTEMPT_DEADLINE, try_run(worker, place, run)).await;
    let outcome = outcome.unwrap_or(Err(WriteError::Late(run)));
    if let Err(failure) = &outcome {
        archiving.meter.failures.inc();
        if matches!(
            failure,
            WriteError::Rows { .. } | WriteError::Damaged { .. }
        ) {
            error!(%run, error = %failure, "a run is not archived; its events stay in Postgres");
        }
    }
    Ok(outcome?)
}

async fn try_run(worker: &Worker, place: &ArchiveStore, run: Uuid) -> Result<(), WriteError> {
    let (store, archiving) = (&worker.store, &worker.rules.archiving);
    let age = archiving.after.duration();
    let Some(attempt) = store.begin_archive(run, age).await? else {
        return Ok(());
    };
    let (written, index) = writer::archive(store, place, &attempt).await?;
    let rows_after = ROWS_AFTER.min(age);
    if !store
        .keep_archive(&attempt, &written, &index, rows_after)
        .await?
    {
        return Err(WriteError::Overtaken(run));
    }
    let (events, raw, stored) = (written.events, written.raw_bytes, written.stored_bytes);
    archiving.meter.runs.inc();
    archiving.meter.raw_bytes.inc_by(raw);
    archiving.meter.stored_bytes.inc_by(stored);
    info!(%run, events, raw, stored, "archived a run");
    Ok(())
}

/// Drops the rows of a day that the archive holds.
///
/// # Errors
/// [`TaskError`]; what was dropped until then stays so.
pub(super) async fn drop_rows(worker: &Worker, day: NaiveDate) -> Result<(), TaskError> {
    match worker.store.drop_archived_rows(day).await? {
        Dropped::Day => info!(%day, "dropped all rows of a day that is archived"),
        Dropped::Rows(rows) => info!(%day, rows, "dropped rows of archived runs"),
    }
    Ok(())
}

/// Deletes objects that are to go: of runs that are gone, and of attempts that came to nothing.
///
/// # Errors
/// [`TaskError`]; what was deleted until then stays so, the rest stays noted.
pub(super) async fn delete_leaving(worker: &Worker) -> Result<(), TaskError> {
    let (store, archiving) = (&worker.store, &worker.rules.archiving);
    let mut after = Uuid::nil();
    loop {
        let objects = store.leaving_objects(after, PAGE).await?;
        let Some(last) = objects.last() else {
            return Ok(());
        };
        after = last.id;
        let Some(place) = &archiving.place else {
            warn!(
                "archived runs are to be deleted, and RUNCAST_ARCHIVE, which says where they are, is not set"
            );
            return Ok(());
        };
        for object in &objects {
            delete(worker, place, object).await?;
        }
    }
}

/// The object first, its row afterwards: what dies in between is done again.
async fn delete(worker: &Worker, place: &ArchiveStore, object: &Leaving) -> Result<(), TaskError> {
    let name = object_name(object.run, object.id);
    place.remove(&name, object.upload.as_deref()).await?;
    if worker.store.forget_object(object.id).await? {
        worker.rules.archiving.meter.deleted.inc();
        info!(object = name, "deleted an object of the archive");
    }
    Ok(())
}
