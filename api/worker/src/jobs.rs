//! The queue's jobs, and the runner that takes them.
//!
//! A job is idempotent: it may run again after a worker died in it. That one is noticed by its missing
//! heartbeat after [`DEAD_AFTER`], and its job goes to another. A job that is running when its worker
//! is told to stop has [`GRACE`] to end, then it is given back.

use std::fmt;
use std::time::Duration;

use chrono::NaiveDate;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::{archive, orphan_keys, retention};
use crate::context::Worker;
use crate::error::TaskError;
use runcast_store::job_queue::{ROWS, SCHEMA};

/// The jobs that are due every hour.
pub const NAMES: [&str; 6] = [
    Partitions::IDENTIFIER,
    Sessions::IDENTIFIER,
    Retention::IDENTIFIER,
    Orphans::IDENTIFIER,
    Webhooks::IDENTIFIER,
    Archive::IDENTIFIER,
];

/// The job of one run that is to be archived.
pub(super) const ARCHIVE_RUN: &str = ArchiveRun::IDENTIFIER;

/// How often each worker asks for jobs.
const POLL: Duration = Duration::from_secs(2);

/// Silence of a worker after which its jobs go to another; it gives a sign of life three times as often.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// How long a job may go on after its worker was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Takes the hourly jobs until told to stop.
///
/// # Errors
/// [`TaskError::Queue`] if Postgres fails; jobs that were running are given to others in time.
pub async fn upkeep(worker: &Worker, stop: &CancellationToken) -> Result<(), TaskError> {
    let options = options(worker, stop)
        .define_job::<Partitions>()
        .define_job::<Sessions>()
        .define_job::<Retention>()
        .define_job::<Orphans>()
        .define_job::<Webhooks>()
        .define_job::<Archive>();
    work(options).await
}

/// Takes the jobs of runs that go into the archive until told to stop: beside the hourly ones, which would wait
/// for as long as a large run takes.
///
/// # Errors
/// As [`upkeep`].
pub async fn archive(worker: &Worker, stop: &CancellationToken) -> Result<(), TaskError> {
    let options = options(worker, stop)
        .define_job::<ArchiveRun>()
        .define_job::<ArchiveRows>();
    work(options).await
}

fn options(worker: &Worker, stop: &CancellationToken) -> WorkerOptions {
    WorkerOptions::default()
        .database(worker.store.queue())
        .schema(SCHEMA)
        .concurrency(1)
        .poll_interval(POLL)
        .use_notification_delivery(false)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stop.clone().cancelled_owned())
        .shutdown_grace_period(GRACE)
        .heartbeat_interval(DEAD_AFTER / 3)
        .sweep_interval(DEAD_AFTER / 3)
        .sweep_threshold(DEAD_AFTER)
        .recovery_delay(Duration::ZERO)
        .add_extension(worker.clone())
}

async fn work(options: WorkerOptions) -> Result<(), TaskError> {
    let failed = |error: &dyn fmt::Display| TaskError::Queue(error.to_string());
    let runner = options.init().await.map_err(|error| failed(&error))?;
    runner.run().await.map_err(|error| failed(&error))
}

/// The library stores a failure by its `Debug`: it shall be read by people.
struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Does a job with the worker that its context carries, and notes how it went.
async fn with<F: Future<Output = Result<(), TaskError>>>(
    context: WorkerContext,
    job: impl FnOnce(Worker) -> F,
) -> Result<(), Failure> {
    let worker = context.get_ext::<Worker>().cloned();
    let worker = worker.ok_or_else(|| Failure("no worker in the context of a job".into()))?;
    let (store, begun) = (worker.store.clone(), Instant::now());
    let done = job(worker).await.map_err(|error| error.to_string());
    let (name, error) = (context.job().task_identifier(), done.as_ref().err());
    let noted = store.note_job(name, begun.elapsed(), error.map(String::as_str));
    if let Err(error) = noted.await {
        // The job itself is done or has failed all the same.
        debug!(%error, name, "cannot note how a job went");
    }
    done.map_err(Failure)
}

/// Makes partitions for the events of the days ahead.
#[derive(Debug, Serialize, Deserialize)]
struct Partitions {}

impl TaskHandler for Partitions {
    const IDENTIFIER: &'static str = "partitions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            let made = worker.store.make_partitions().await?;
            if made > 0 {
                info!(made, "made partitions for the events of the days ahead");
            }
            Ok(())
        })
        .await
    }
}

/// Forgets expired sessions.
#[derive(Debug, Serialize, Deserialize)]
struct Sessions {}

impl TaskHandler for Sessions {
    const IDENTIFIER: &'static str = "sessions";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            let forgotten = worker.store.forget_expired_sessions().await?;
            if forgotten > 0 {
                info!(forgotten, "forgot expired sessions");
            }
            Ok(())
        })
        .await
    }
}

/// Removes what is too old.
#[derive(Debug, Serialize, Deserialize)]
struct Retention {}

impl TaskHandler for Retention {
    const IDENTIFIER: &'static str = "retention";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            retention::remove_old(&worker).await
        })
        .await
    }
}

/// Removes what Redis holds of runs that do not exist.
#[derive(Debug, Serialize, Deserialize)]
struct Orphans {}

impl TaskHandler for Orphans {
    const IDENTIFIER: &'static str = "orphans";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            orphan_keys::remove(&worker).await
        })
        .await
    }
}

/// Gives up deliveries of webhooks that cannot be tried, and forgets old ones.
#[derive(Debug, Serialize, Deserialize)]
struct Webhooks {}

impl TaskHandler for Webhooks {
    const IDENTIFIER: &'static str = "webhooks";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            Ok(worker.webhooks.tidy().await?)
        })
        .await
    }
}

/// Finds what is to be archived, and lets go what the archive shall no longer hold.
#[derive(Debug, Serialize, Deserialize)]
struct Archive {}

impl TaskHandler for Archive {
    const IDENTIFIER: &'static str = "archive";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(
            context,
            |worker| async move { archive::round(&worker).await },
        )
        .await
    }
}

/// Archives a run.
#[derive(Debug, Serialize, Deserialize)]
struct ArchiveRun {
    run: Uuid,
}

impl TaskHandler for ArchiveRun {
    const IDENTIFIER: &'static str = "archive_run";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            archive::archive_run(&worker, self.run).await
        })
        .await
    }
}

/// Drops the rows of a day's archived runs.
#[derive(Debug, Serialize, Deserialize)]
struct ArchiveRows {
    day: NaiveDate,
}

impl TaskHandler for ArchiveRows {
    const IDENTIFIER: &'static str = ROWS;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        with(context, |worker| async move {
            archive::drop_rows(&worker, self.day).await
        })
        .await
    }
}
