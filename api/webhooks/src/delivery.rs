//! Notifications: sends what the schema has put into line for webhooks ([`runcast_store::webhook_deliveries`]).
//!
//! Every worker does. It claims due deliveries, [`ROOM`] at most under way, of one webhook only a few over all workers, so
//! a slow receiver holds up nobody else. Delivered is at least once: a worker that dies between sending and writing that
//! down leaves a claim that runs out, and the delivery is sent again with the same `webhook-id`. While nothing dies each
//! is sent once: a claim lasts longer than an attempt and its note can take.
//!
//! What fails is tried again after a jittered wait that doubles from [`RetryPolicy::first_retry`] up to [`MOST_WAIT`], until
//! [`RetryPolicy::give_up`] has passed since the first attempt; then it is dead until an operator replays it. A webhook that has
//! failed [`SLOW_AFTER`] times in a row gets one attempt at a time, with pauses that double up to [`MOST_HOLD`].
//!
//! Why these are no jobs of the queue in the worker: a row of the log of deliveries is all that a queue would hold of it,
//! and two places would have to agree on attempts and next tries; and that library starts one job for each slot and poll.

use std::time::Duration;

use chrono::Utc;
use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::attempt::{Outcome, Sender};
use crate::egress::EgressPolicy;
use crate::metrics::Metrics;
use runcast_store::webhook_deliveries::{DeliveryAttempt, DueDelivery, NextAttempt, SLOW_AFTER};
use runcast_store::{Store, StoreError};

/// Of what a webhook can be told.
pub const STATUSES: [&str; 7] = [
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "lost",
    "sealed",
    "incomplete",
];

/// Deliveries that one worker has under way.
const ROOM: usize = 64;

/// How often each worker looks for due deliveries.
const POLL: Duration = Duration::from_millis(500);

/// Longest wait between two attempts of a delivery.
const MOST_WAIT: Duration = Duration::from_secs(4 * 3600);

/// Longest pause of a webhook that fails.
const MOST_HOLD: Duration = Duration::from_secs(15 * 60);

/// How long deliveries that are under way get when the worker is told to stop.
const GRACE: Duration = Duration::from_secs(12);

/// What an attempt may take beyond the time that the receiver has.
const MARGIN: Duration = Duration::from_secs(1);

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// `RUNCAST_WEBHOOK_ALLOW`: where webhooks may lead beside public addresses.
    pub allowed: EgressPolicy,
    /// `RUNCAST_WEBHOOK_TIMEOUT`: how long a receiver may take to answer.
    pub timeout: Duration,
    /// `RUNCAST_WEBHOOK_FIRST_RETRY`: the wait after the first failure.
    pub first_retry: Duration,
    /// `RUNCAST_WEBHOOK_GIVE_UP`: how long a delivery is tried.
    pub give_up: Duration,
    /// `RUNCAST_WEBHOOK_LOG`: how long ended deliveries are kept.
    pub keep: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            allowed: EgressPolicy::default(),
            timeout: Duration::from_secs(10),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

impl RetryPolicy {
    /// How long a claim lasts: an attempt, and as long again for writing it down.
    fn claim(&self) -> Duration {
        (self.timeout + MARGIN) * 2
    }

    /// What follows from an attempt.
    fn next(&self, due: &DueDelivery, outcome: &Outcome) -> NextAttempt {
        if outcome.attempt.error.is_none() {
            return NextAttempt::Delivered;
        }
        if outcome.gone {
            return NextAttempt::Gone;
        }
        let failures = due.failures.saturating_add(1);
        let hold = match failures.checked_sub(SLOW_AFTER) {
            Some(beyond @ 0..) => doubled(self.first_retry, beyond, MOST_HOLD),
            _ => Duration::ZERO,
        };
        let asked = outcome.retry_after.unwrap_or_default();
        let hold = hold.max(asked);
        let wait = doubled(self.first_retry, due.attempts, MOST_WAIT).max(asked);
        let tried = due.tried_since.map_or(Duration::ZERO, |since| {
            (Utc::now() - since).to_std().unwrap_or_default()
        });
        if tried + wait > self.give_up {
            return NextAttempt::Dead { hold };
        }
        NextAttempt::Again { wait, hold }
    }
}

/// A random part, at least half, of `first` doubled so many times, up to `most`.
fn doubled(first: Duration, times: i32, most: Duration) -> Duration {
    let factor = 1_u32 << times.clamp(0, 24);
    let bound = first.saturating_mul(factor).min(most);
    bound.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Why deliveries cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Postgres, which holds the deliveries, did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No HTTP client could be made.
    #[error("no HTTP client for webhooks can be made: {0}")]
    Client(String),
}

/// Sends what the database has queued for webhooks. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Deliverer {
    store: Store,
    policy: RetryPolicy,
    metrics: Metrics,
}

impl Deliverer {
    /// A deliverer that reads its work from this Postgres.
    #[must_use]
    pub const fn new(store: Store, policy: RetryPolicy, metrics: Metrics) -> Self {
        Self {
            store,
            policy,
            metrics,
        }
    }

    /// Sends deliveries until told to stop; those under way get [`GRACE`] to end.
    ///
    /// # Errors
    /// [`DeliveryError`] if Postgres cannot be asked for deliveries, or no client can be made.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), DeliveryError> {
        deliver(self, stop).await
    }

    /// The hourly job: gives up deliveries that cannot even be tried, and deletes those that ended long ago.
    ///
    /// # Errors
    /// [`StoreError`]; what was done until then stays so.
    pub async fn tidy(&self) -> Result<(), StoreError> {
        let policy = &self.policy;
        let (given_up, deleted) = self
            .store
            .tidy_deliveries(policy.give_up, policy.keep)
            .await?;
        if given_up + deleted > 0 {
            info!(given_up, deleted, "removed old webhook deliveries");
        }
        Ok(())
    }
}

async fn deliver(worker: &Deliverer, stop: &CancellationToken) -> Result<(), DeliveryError> {
    let policy = &worker.policy;
    let sender = Sender::new(policy.allowed.clone(), policy.timeout)
        .map_err(|error| DeliveryError::Client(error.to_string()))?;
    let mut sending = JoinSet::new();
    let outcome = loop {
        while let Some(done) = sending.try_join_next() {
            ended(done);
        }
        let claim = Uuid::now_v7();
        let room = ROOM - sending.len();
        let due = match worker
            .store
            .claim_deliveries(claim, room, policy.claim())
            .await
        {
            Ok(due) => due,
            Err(error) => break Err(error.into()),
        };
        let found = !due.is_empty();
        for due in due {
            let (worker, sender) = (worker.clone(), sender.clone());
            sending.spawn(async move { attempt(&worker, &sender, claim, &due).await });
        }
        let pause = async {
            // Where there was something, there may be more as soon as one is done.
            tokio::select! {
                Some(done) = sending.join_next(), if found => ended(done),
                () = sleep(POLL.mul_f64(rand::rng().random_range(0.8..=1.2))) => {}
            }
        };
        if stop.run_until_cancelled(pause).await.is_none() {
            break Ok(());
        }
    };
    let draining = async {
        while let Some(done) = sending.join_next().await {
            ended(done);
        }
    };
    if timeout(GRACE, draining).await.is_err() {
        info!("deliveries are still under way; they will be sent again");
    }
    outcome
}

/// A panic of a task is one of whoever started it.
fn ended(done: Result<(), JoinError>) {
    if let Err(died) = done
        && died.is_panic()
    {
        std::panic::resume_unwind(died.into_panic());
    }
}

/// Sends one delivery and writes down how that went.
async fn attempt(worker: &Deliverer, sender: &Sender, claim: Uuid, due: &DueDelivery) {
    let policy = &worker.policy;
    let limit = policy.timeout + MARGIN;
    let begun = Instant::now();
    // The client keeps its own deadline; this one holds whatever it does.
    let outcome = timeout(limit, sender.send(due)).await;
    let outcome = outcome.unwrap_or_else(|_elapsed| Outcome {
        attempt: DeliveryAttempt {
            took: begun.elapsed(),
            status: None,
            error: Some("no answer in time".to_owned()),
        },
        gone: false,
        retry_after: None,
    });
    let next = policy.next(due, &outcome);
    let (delivery, webhook) = (due.id, due.webhook);
    let error = outcome.attempt.error.as_deref().unwrap_or_default();
    let told = match next {
        NextAttempt::Delivered => "delivered",
        NextAttempt::Again { .. } => "failed",
        NextAttempt::Dead { .. } | NextAttempt::Gone => "dead",
    };
    worker.metrics.count_attempt(told, outcome.attempt.took);
    match next {
        NextAttempt::Delivered => debug!(%delivery, %webhook, "delivered"),
        NextAttempt::Again { .. } => {
            debug!(%delivery, %webhook, error, "not delivered; trying again");
        }
        NextAttempt::Dead { .. } => warn!(%delivery, %webhook, error, "given up"),
        NextAttempt::Gone => {
            warn!(%webhook, "the receiver answered 410 Gone: the webhook is disabled");
        }
    }
    let noted = async {
        let mut backoff = Backoff::for_connections();
        loop {
            match worker
                .store
                .note_attempt(claim, due, &outcome.attempt, next)
                .await
            {
                Ok(ours) => return ours,
                Err(error) => debug!(%error, %delivery, "an attempt cannot be written down yet"),
            }
            sleep(backoff.next_wait()).await;
        }
    };
    match timeout(limit, noted).await {
        Ok(true) => {}
        Ok(false) => debug!(%delivery, "removed meanwhile, or sent by another worker as well"),
        Err(_elapsed) => {
            warn!(%delivery, %webhook, "an attempt could not be written down; it will be made again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(attempts: i32, failures: i32, hours: i64) -> DueDelivery {
        DueDelivery {
            id: Uuid::nil(),
            webhook: Uuid::nil(),
            url: String::new(),
            secret: vec![].into(),
            body: String::new(),
            attempts,
            failures,
            tried_since: (hours > 0).then(|| Utc::now() - chrono::TimeDelta::hours(hours)),
        }
    }

    fn outcome(status: Option<u16>, retry_after: Option<u64>) -> Outcome {
        let good = status.is_some_and(|status| status < 300);
        Outcome {
            attempt: DeliveryAttempt {
                took: Duration::ZERO,
                status,
                error: (!good).then(|| "failed".to_owned()),
            },
            gone: status == Some(410),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn failures_wait_longer_and_longer_until_they_are_given_up() {
        let policy = RetryPolicy::default();
        let failed = outcome(Some(500), None);
        let wait = |attempts| match policy.next(&due(attempts, 0, 0), &failed) {
            NextAttempt::Again { wait, .. } => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!((5..=10).contains(&wait(0)));
        assert!((20..=40).contains(&wait(2)));
        assert!((2 * 3600..=4 * 3600).contains(&wait(30)));
        assert!(matches!(
            policy.next(&due(20, 0, 25), &failed),
            NextAttempt::Dead { .. }
        ));
        assert_eq!(
            policy.next(&due(20, 0, 25), &outcome(Some(204), None)),
            NextAttempt::Delivered
        );
        assert_eq!(
            policy.next(&due(0, 0, 0), &outcome(Some(410), None)),
            NextAttempt::Gone
        );
    }

    #[test]
    fn a_webhook_that_fails_for_long_is_slowed() {
        let policy = RetryPolicy::default();
        let hold = |failures, outcome| match policy.next(&due(0, failures, 0), &outcome) {
            NextAttempt::Again { hold, .. } => hold.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(hold(0, outcome(None, None)), 0);
        assert_eq!(hold(SLOW_AFTER - 2, outcome(None, None)), 0);
        assert!((5..=10).contains(&hold(SLOW_AFTER - 1, outcome(None, None))));
        assert!((450..=900).contains(&hold(1000, outcome(None, None))));
        assert_eq!(hold(0, outcome(Some(429), Some(77))), 77);
    }
}
