//! The jobs of the queue, and the runners that take them.
//!
//! Every job is idempotent, since it may run again after its worker died. A worker sends
//! heartbeats; [`DEAD_AFTER`] the last one its jobs go to another worker. A job that is running
//! when its worker is stopped has [`SHUTDOWN_GRACE`] to end; then it goes back to the queue.

use std::fmt;
use std::time::Duration;

use chrono::NaiveDate;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use crate::error::TaskError;
use crate::worker::Worker;
use crate::{archive, deletion, orphan_keys, redaction, retention};
use runcast_store::deletion::DELETE_RUN;
use runcast_store::job_queue::{ROWS, SCHEMA};
use runcast_store::redactions::REDACT_RUN;

/// The jobs that are queued every hour.
pub(crate) const HOURLY_JOBS: [&str; 8] = [
    MakePartitions::IDENTIFIER,
    RemoveSessions::IDENTIFIER,
    ApplyRetention::IDENTIFIER,
    RemoveOrphans::IDENTIFIER,
    CleanUpWebhooks::IDENTIFIER,
    ScheduleArchive::IDENTIFIER,
    ScheduleDeletions::IDENTIFIER,
    ScheduleRedactions::IDENTIFIER,
];

/// How often each worker asks for jobs.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A worker that has sent no heartbeat for this long counts as dead, and its jobs go to another.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Between two heartbeats, and two searches for dead workers.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a job may go on after its worker was stopped.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Takes the hourly jobs until `stop`. Jobs that run when Postgres fails are repeated later.
pub(crate) async fn run_hourly_jobs(
    worker: &Worker,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let options = options(worker, stop)
        .define_job::<MakePartitions>()
        .define_job::<RemoveSessions>()
        .define_job::<ApplyRetention>()
        .define_job::<RemoveOrphans>()
        .define_job::<CleanUpWebhooks>()
        .define_job::<ScheduleArchive>()
        .define_job::<ScheduleDeletions>()
        .define_job::<ScheduleRedactions>();
    run(worker, options).await
}

/// Takes the jobs that remove what is left of deleted runs until `stop`. They have a runner of
/// their own, because a deletion must wait neither for retention nor for the archive.
pub(crate) async fn run_deletion_jobs(
    worker: &Worker,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let options = options(worker, stop).define_job::<DeleteRun>();
    run(worker, options).await
}

/// Takes the jobs that redact runs until `stop`. They have a runner of their own, because what is
/// to be redacted can be read until then.
pub(crate) async fn run_redaction_jobs(
    worker: &Worker,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let options = options(worker, stop).define_job::<RedactRun>();
    run(worker, options).await
}

/// Takes the jobs that archive runs until `stop`. They have a runner of their own, since the hourly
/// jobs would otherwise wait for as long as a large run takes.
pub(crate) async fn run_archive_jobs(
    worker: &Worker,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let options = options(worker, stop)
        .define_job::<ArchiveRun>()
        .define_job::<DropArchivedRows>();
    run(worker, options).await
}

fn options(worker: &Worker, stop: &CancellationToken) -> WorkerOptions {
    WorkerOptions::default()
        .schema(SCHEMA)
        .concurrency(1)
        .poll_interval(POLL_INTERVAL)
        .use_notification_delivery(false)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stop.clone().cancelled_owned())
        .shutdown_grace_period(SHUTDOWN_GRACE)
        .heartbeat_interval(HEARTBEAT_INTERVAL)
        .sweep_interval(HEARTBEAT_INTERVAL)
        .sweep_threshold(DEAD_AFTER)
        .recovery_delay(Duration::ZERO)
        .add_extension(worker.clone())
}

async fn run(worker: &Worker, options: WorkerOptions) -> Result<(), TaskError> {
    let failed = |error: &dyn fmt::Display| TaskError::Queue(error.to_string());
    let (database, gate) = worker.store.queue();
    let runner = options.database(database).init().await;
    let runner = runner.map_err(|error| failed(&error))?;
    gate.open();
    runner.run().await.map_err(|error| failed(&error))
}

/// A failure in words: the library stores failures by their `Debug`, and people read them.
struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a job with the worker that its context carries, and records how it ended.
async fn run_job<F: Future<Output = Result<(), TaskError>>>(
    context: WorkerContext,
    job: impl FnOnce(Worker) -> F,
) -> Result<(), Failure> {
    let worker = context.get_ext::<Worker>().cloned();
    let worker = worker.ok_or_else(|| Failure("no worker in the context of a job".into()))?;
    let (store, started) = (worker.store.clone(), Instant::now());
    let done = job(worker).await.map_err(|error| error.to_string());
    let (name, error) = (context.job().task_identifier(), done.as_ref().err());
    let recorded = store.note_job(name, started.elapsed(), error.map(String::as_str));
    if let Err(error) = recorded.await {
        // The job itself has succeeded or failed regardless of its record.
        debug!(%error, name, "cannot record how a job ended");
    }
    done.map_err(Failure)
}

/// Makes partitions for the events of the days ahead.
#[derive(Debug, Serialize, Deserialize)]
struct MakePartitions {}

impl TaskHandler for MakePartitions {
    const IDENTIFIER: &'static str = "partitions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            let made = worker.store.make_partitions().await?;
            if made > 0 {
                info!(made, "made partitions for the events of the days ahead");
            }
            Ok(())
        })
        .await
    }
}

/// Deletes expired sessions.
#[derive(Debug, Serialize, Deserialize)]
struct RemoveSessions {}

impl TaskHandler for RemoveSessions {
    const IDENTIFIER: &'static str = "sessions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            let removed = worker.store.forget_expired_sessions().await?;
            if removed > 0 {
                info!(removed, "removed expired sessions");
            }
            Ok(())
        })
        .await
    }
}

/// Removes runs and audit entries that are too old.
#[derive(Debug, Serialize, Deserialize)]
struct ApplyRetention {}

impl TaskHandler for ApplyRetention {
    const IDENTIFIER: &'static str = "retention";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            retention::remove_old(&worker).await
        })
        .await
    }
}

/// Removes keys from Redis whose runs do not exist.
#[derive(Debug, Serialize, Deserialize)]
struct RemoveOrphans {}

impl TaskHandler for RemoveOrphans {
    const IDENTIFIER: &'static str = "orphans";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            orphan_keys::remove_orphans(&worker).await
        })
        .await
    }
}

/// Gives up webhook deliveries that cannot be tried, and deletes old ones.
#[derive(Debug, Serialize, Deserialize)]
struct CleanUpWebhooks {}

impl TaskHandler for CleanUpWebhooks {
    const IDENTIFIER: &'static str = "webhooks";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            Ok(worker.webhooks.clean_up().await?)
        })
        .await
    }
}

/// Queues runs to be archived, and deletes objects that the archive should no longer hold.
#[derive(Debug, Serialize, Deserialize)]
struct ScheduleArchive {}

impl TaskHandler for ScheduleArchive {
    const IDENTIFIER: &'static str = "archive";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            archive::run_hourly(&worker).await
        })
        .await
    }
}

/// Archives a run.
#[derive(Debug, Serialize, Deserialize)]
struct ArchiveRun {
    run: Uuid,
}

impl TaskHandler for ArchiveRun {
    const IDENTIFIER: &'static str = archive::ARCHIVE_RUN;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            archive::archive_run(&worker, self.run).await
        })
        .await
    }
}

/// Drops the rows of a day's archived runs.
#[derive(Debug, Serialize, Deserialize)]
struct DropArchivedRows {
    day: NaiveDate,
}

impl TaskHandler for DropArchivedRows {
    const IDENTIFIER: &'static str = ROWS;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            archive::drop_rows(&worker, self.day).await
        })
        .await
    }
}

/// Queues deletions that are not finished.
#[derive(Debug, Serialize, Deserialize)]
struct ScheduleDeletions {}

impl TaskHandler for ScheduleDeletions {
    const IDENTIFIER: &'static str = "deletions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            deletion::schedule_unfinished(&worker).await
        })
        .await
    }
}

/// Removes what is left of a deleted run.
#[derive(Debug, Serialize, Deserialize)]
struct DeleteRun {
    run: Uuid,
}

impl TaskHandler for DeleteRun {
    const IDENTIFIER: &'static str = DELETE_RUN;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            deletion::remove_rest(&worker, self.run).await
        })
        .await
    }
}

/// Queues redactions that are not finished.
#[derive(Debug, Serialize, Deserialize)]
struct ScheduleRedactions {}

impl TaskHandler for ScheduleRedactions {
    const IDENTIFIER: &'static str = "redactions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            redaction::job::schedule_unfinished(&worker).await
        })
        .await
    }
}

/// Carries out the redactions of a run.
#[derive(Debug, Serialize, Deserialize)]
struct RedactRun {
    run: Uuid,
}

impl TaskHandler for RedactRun {
    const IDENTIFIER: &'static str = REDACT_RUN;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        run_job(context, |worker| async move {
            redaction::job::redact_run(&worker, self.run).await
        })
        .await
    }
}
