//! What has to be done now and then, in the background: the worker. Any number may run.
//!
//! Loops, each of which starts again after a failure, with a jittered backoff of at most 30 s:
//! - [`watch`]: whoever holds the lease `worker` looks every few seconds which agents live, and every
//!   hour puts the jobs below into the queue. The lease is a row in Postgres ([`runcast_store::leases`]),
//!   lasts 12 s, and its fencing number is checked in each transaction that acts.
//! - [`jobs::upkeep`]: every worker takes jobs from the queue: partitions and sessions, [`retention`],
//!   [`orphans`], [`archive`]. They run one after the other, are repeated with growing waits when they fail, and
//!   are dead after some minutes of failures, until the next hour puts them in again.
//! - [`jobs::archive`]: jobs of single runs that go into the archive, one at a time in each worker.
//! - [`webhooks`]: every worker sends notifications; and each tells how all of that stands ([`meter`]).
//!
//! The queue is the library `graphile_worker`. Looked at beside it: `apalis-postgres` (wants a second
//! sqlx, the release that lost `TCP_NODELAY`), `sqlxmq` (a shift by its count of failures overflows in a
//! long outage of Postgres) and `underway` (runs each job inside an open transaction, and a failed
//! commit leaves a heartbeat that keeps the job from everybody else for ever). It has dead-worker
//! recovery, job keys and serial queues, and works on our own pool ([`runcast_store::job_queue`]).

use std::time::Duration;

use runcast_common::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::context::Worker;
use crate::error::TaskError;

impl Worker {
    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let me = Uuid::now_v7();
        let deliver = async || Ok(self.webhooks.run(&stop).await?);
        tokio::join!(
            persevere("watching agents", &stop, || crate::liveness::watch(
                &self, me, &stop
            )),
            persevere("background jobs", &stop, || crate::jobs::upkeep(
                &self, &stop
            )),
            persevere("archiving", &stop, || crate::jobs::archive(&self, &stop)),
            persevere("webhooks", &stop, deliver),
            persevere("metrics of jobs", &stop, || crate::metrics::observe(
                &self, &stop
            )),
        );
    }
}

/// Starts a loop again, until told to stop.
async fn persevere<F: Future<Output = Result<(), TaskError>>>(
    what: &str,
    stop: &CancellationToken,
    work: impl Fn() -> F,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        let result = work().await;
        if stop.is_cancelled() {
            return;
        }
        // It had worked for a while: this is a new failure.
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        if let Err(error) = result {
            warn!(%error, ?wait, "{what} failed; trying again");
        }
        // Told to stop or not: the loop looks.
        let _told = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}
