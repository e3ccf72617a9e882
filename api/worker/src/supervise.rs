//! Runs the loops of the worker, and restarts each of them after a failure, with a jittered backoff
//! of at most 30 s. Before each start the schema is checked: a worker must not write to a database
//! that is empty or only half restored.
//!
//! - [`liveness`]: the worker that holds the lease checks every few seconds which agents are
//!   silent, and queues the hourly jobs. The lease is a row in Postgres, not in Redis, so the very
//!   transaction that acts checks its fencing number ([`runcast_store::leases`]).
//! - [`reconcile`]: the worker that holds another lease queues runs of which Postgres has lost
//!   events.
//! - [`jobs::run_hourly_jobs`]: every worker takes hourly jobs from the queue. They run one after
//!   the other and are retried with growing waits. After some minutes of failures a job is dead,
//!   until the next hour queues it again.
//! - [`jobs::run_archive_jobs`]: jobs that archive single runs, one at a time in each worker.
//! - [`jobs::run_deletion_jobs`]: jobs that remove what is left of deleted runs, likewise.
//! - [`jobs::run_redaction_jobs`]: jobs that redact stored events, likewise.
//! - [`runcast_webhooks`]: every worker delivers notifications.
//! - [`run_users`]: every worker removes Redis users of agents whose token has ended.
//! - [`metrics`]: every worker reports the state of the queue.
//!
//! The queue is the library `graphile_worker`. It recovers the jobs of dead workers, has job keys
//! and serial queues, and works on our own pool ([`runcast_store::job_queue`]). The alternatives
//! were `apalis-postgres` (needs a second sqlx, of the release that lost `TCP_NODELAY`), `sqlxmq`
//! (a shift by its count of failures overflows in a long outage of Postgres) and `underway` (runs
//! each job inside an open transaction, and a failed commit leaves a heartbeat that blocks the job
//! forever).

use std::time::Duration;

use runcast_common::backoff::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::error::TaskError;
use crate::worker::Worker;
use crate::{jobs, liveness, metrics, reconcile, run_users};
use runcast_store::Store;

/// A loop that ran for this long was healthy: after a failure its wait is short again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

impl Worker {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let owner = Uuid::now_v7();
        let watch = || liveness::watch_agents(&self, owner, &stop);
        let reconcile = || reconcile::watch_database(&self, owner, &stop);
        let hourly = || jobs::run_hourly_jobs(&self, &stop);
        let archive = || jobs::run_archive_jobs(&self, &stop);
        let delete = || jobs::run_deletion_jobs(&self, &stop);
        let redact = || jobs::run_redaction_jobs(&self, &stop);
        let deliver = async || Ok(self.webhooks.run(&stop).await?);
        let users = || run_users::check_users(&self, &stop);
        let report = || metrics::report_jobs(&self.metrics, &self.store, &stop);
        tokio::join!(
            restart(&self.store, "watching agents", &stop, watch),
            restart(&self.store, "reconciling", &stop, reconcile),
            restart(&self.store, "background jobs", &stop, hourly),
            restart(&self.store, "archiving", &stop, archive),
            restart(&self.store, "deletions", &stop, delete),
            restart(&self.store, "redactions", &stop, redact),
            restart(&self.store, "webhooks", &stop, deliver),
            restart(&self.store, "users of Redis", &stop, users),
            restart(&self.store, "metrics of jobs", &stop, report),
        );
    }
}

/// Starts a loop again whenever it ends, until `stop`.
async fn restart<F: Future<Output = Result<(), TaskError>>>(
    store: &Store,
    name: &str,
    stop: &CancellationToken,
    work: impl Fn() -> F,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let started = Instant::now();
        let result = match store.check_schema().await {
            Ok(()) => work().await,
            Err(error) => Err(error.into()),
        };
        if stop.is_cancelled() {
            return;
        }
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        if let Err(error) = result {
            warn!(%error, ?wait, "{name} failed; trying again");
        }
        // The condition of the loop notices `stop`.
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}
