//! What has to be done now and then, in the background: the worker. Any number may run.
//!
//! Loops, each of which starts again after a failure, with a jittered backoff of at most 30 s:
//! - [`watch`]: whoever holds the lease `worker` looks every few seconds which agents live, and every
//!   hour puts the jobs below into the queue. The lease is a row in Postgres ([`crate::store::leases`]),
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
//! recovery, job keys and serial queues, and works on our own pool ([`crate::store::queue`]).

pub mod age;
pub mod archive;
pub mod jobs;
pub mod meter;
pub mod orphans;
pub mod retention;
pub mod watch;
pub mod webhooks;

use std::time::Duration;

use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::presence::liveness::LivenessThresholds;
use runcast_common::protocol::keys::Keys;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use self::archive::Archiving;
use self::meter::Meter;
use self::retention::Retention;
use crate::archive::place::PlaceError;
use crate::archive::write::WriteError;
use crate::store::{Store, StoreError};

/// What a task can fail with.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// The place of the archive.
    #[error("the archive at {0}")]
    Place(#[from] PlaceError),
    /// A run could not be archived.
    #[error(transparent)]
    Archive(#[from] WriteError),
    /// The job library.
    #[error("the queue of background tasks: {0}")]
    Queue(String),
    /// No HTTP client could be made.
    #[error("no HTTP client for webhooks can be made: {0}")]
    Client(String),
}

/// What every task works with. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Worker {
    store: Store,
    redis: Redis,
    keys: Keys,
    rules: Rules,
    meter: Meter,
}

/// What an operator wants of a worker.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long runs are kept.
    pub retention: Retention,
    /// Where old ones go.
    pub archiving: Archiving,
    /// Where notifications may go, and for how long they are tried.
    pub webhooks: webhooks::Policy,
    /// How long a silence of an agent means what.
    pub silence: LivenessThresholds,
}

impl Worker {
    /// A worker between this Redis and this Postgres.
    #[must_use]
    pub const fn new(store: Store, redis: Redis, keys: Keys, rules: Rules, meter: Meter) -> Self {
        Self {
            store,
            redis,
            keys,
            rules,
            meter,
        }
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let me = Uuid::now_v7();
        tokio::join!(
            persevere("watching agents", &stop, || watch::watch(&self, me, &stop)),
            persevere("background jobs", &stop, || jobs::upkeep(&self, &stop)),
            persevere("archiving", &stop, || jobs::archive(&self, &stop)),
            persevere("webhooks", &stop, || webhooks::deliver(&self, &stop)),
            persevere("metrics of jobs", &stop, || meter::observe(&self, &stop)),
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
