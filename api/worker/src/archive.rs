//! When runs move to the archive, and when archived objects are deleted: three jobs.
//!
//! - `archive`, every hour: queues a job for each run that is due and for each day with archived
//!   rows, gives up attempts that have passed their deadline, and deletes objects that are leaving.
//! - `archive_run`: writes the object of one run, reads it back, compares it, and lets readers read
//!   the run from it. Any number of workers do these jobs at once. A repeated attempt begins a new
//!   object; the hourly job deletes the earlier one.
//! - `archive_rows`: drops the archived rows of a day, [`DROP_ROWS_AFTER`] after the last of its
//!   runs was archived, so that the partition can be emptied at once if all of the day is archived.
//!   It is emptied, not dropped, since a run of that day may go on; retention drops it.
//!
//! Postgres holds the ledger of objects: a row of `archives` exists before the first byte of its
//! object is written and until the object is deleted. So a killed worker leaves no unknown object
//! behind.

use std::time::Duration;

use chrono::NaiveDate;
use tokio::time::timeout;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::error::TaskError;
use crate::worker::Worker;
use runcast_history::archive::object_store::{ArchiveStore, object_name};
use runcast_history::archive::writer::{self, ATTEMPT_DEADLINE, WriteError};
use runcast_store::archive_cleanup::Dropped;
use runcast_store::archives::Leaving;

/// The job that archives one run.
pub(crate) const ARCHIVE_RUN: &str = "archive_run";

/// Runs that get a job in one hour: more than can be archived in an hour.
const MAX_SCHEDULED_RUNS: u32 = 10_000;

/// Pause between the archiving of a day's last run and the drop of the day's rows; shorter if runs
/// are archived sooner than that.
const DROP_ROWS_AFTER: Duration = Duration::from_secs(300);

/// Objects that one query for deletion returns.
const PAGE_OBJECTS: u32 = 100;

/// The hourly job.
pub(crate) async fn run_hourly(worker: &Worker) -> Result<(), TaskError> {
    let (store, archiving) = (&worker.store, &worker.settings.archiving);
    let given_up = store.give_up_attempts(ATTEMPT_DEADLINE).await?;
    if given_up > 0 {
        warn!(
            given_up,
            "gave up attempts to archive a run that did not finish"
        );
    }
    if archiving.place.is_some() {
        let runs = store
            .runs_to_archive(archiving.after.duration(), MAX_SCHEDULED_RUNS)
            .await?;
        if !runs.is_empty() {
            info!(runs = runs.len(), "queued runs to be archived");
            store.schedule_runs(ARCHIVE_RUN, &runs).await?;
        }
    }
    for day in store.days_with_archived_rows().await? {
        store.schedule_day(day).await?;
    }
    delete_leaving_objects(worker, None).await
}

/// Archives a run if it is still due. After a failure its rows are where they were.
pub(crate) async fn archive_run(worker: &Worker, run: Uuid) -> Result<(), TaskError> {
    let archiving = &worker.settings.archiving;
    let Some(objects) = &archiving.place else {
        return Ok(());
    };
    let outcome = timeout(ATTEMPT_DEADLINE, attempt(worker, objects, run)).await;
    let outcome = outcome.unwrap_or(Err(WriteError::TimedOut(run)));
    if let Err(failure) = &outcome {
        archiving.meter.failures.inc();
        if matches!(
            failure,
            WriteError::Rows { .. } | WriteError::Damaged { .. }
        ) {
            error!(%run, error = %failure, "cannot archive a run; its events stay in Postgres");
        }
    }
    Ok(outcome?)
}

async fn attempt(worker: &Worker, objects: &ArchiveStore, run: Uuid) -> Result<(), WriteError> {
    let (store, archiving) = (&worker.store, &worker.settings.archiving);
    let age = archiving.after.duration();
    let Some(attempt) = store.begin_archive(run, age).await? else {
        return Ok(());
    };
    // Write the object, read it back and compare it.
    let (written, index) = writer::write_archive(store, objects, &attempt).await?;
    // From this transaction on readers read the object.
    let drop_rows_after = DROP_ROWS_AFTER.min(age);
    if !store
        .keep_archive(&attempt, &written, &index, drop_rows_after)
        .await?
    {
        return Err(WriteError::Superseded(run));
    }
    let (events, raw, stored) = (written.events, written.raw_bytes, written.stored_bytes);
    archiving.meter.runs.inc();
    archiving.meter.raw_bytes.inc_by(raw);
    archiving.meter.stored_bytes.inc_by(stored);
    info!(%run, events, raw, stored, "archived a run");
    Ok(())
}

/// Drops the rows of a day that the archive holds.
pub(crate) async fn drop_rows(worker: &Worker, day: NaiveDate) -> Result<(), TaskError> {
    match worker.store.drop_archived_rows(day).await? {
        Dropped::Day => info!(%day, "dropped all rows of a day that is archived"),
        Dropped::Rows(rows) => info!(%day, rows, "dropped rows of archived runs"),
    }
    Ok(())
}

/// Deletes the objects of removed runs and of failed attempts; with a run, only objects of that.
pub(crate) async fn delete_leaving_objects(
    worker: &Worker,
    of: Option<Uuid>,
) -> Result<(), TaskError> {
    let (store, archiving) = (&worker.store, &worker.settings.archiving);
    let mut after = Uuid::nil();
    loop {
        let leaving = store.leaving_objects(of, after, PAGE_OBJECTS).await?;
        let Some(last) = leaving.last() else {
            return Ok(());
        };
        after = last.id;
        let Some(objects) = &archiving.place else {
            warn!("cannot delete archived runs: set RUNCAST_ARCHIVE, which says where they are");
            return Ok(());
        };
        for object in &leaving {
            delete_object(worker, objects, object).await?;
        }
    }
}

/// Deletes the object first and its row afterwards: if the worker dies in between, the next one
/// deletes the object again.
async fn delete_object(
    worker: &Worker,
    objects: &ArchiveStore,
    object: &Leaving,
) -> Result<(), TaskError> {
    let name = object_name(object.run, object.id);
    objects.remove(&name, object.upload.as_deref()).await?;
    if worker.store.forget_object(object.id).await? {
        worker.settings.archiving.meter.deleted.inc();
        info!(object = name, "deleted an object of the archive");
    }
    Ok(())
}
