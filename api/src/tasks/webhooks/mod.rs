//! Notifications: sends what the schema has put into line for webhooks ([`crate::store::deliveries`]).
//!
//! Every worker does. It claims due deliveries, [`ROOM`] at most under way, of one webhook only a few over all workers, so
//! a slow receiver holds up nobody else. Delivered is at least once: a worker that dies between sending and writing that
//! down leaves a claim that runs out, and the delivery is sent again with the same `webhook-id`. While nothing dies each
//! is sent once: a claim lasts longer than an attempt and its note can take.
//!
//! What fails is tried again after a jittered wait that doubles from [`Policy::first_retry`] up to [`MOST_WAIT`], until
//! [`Policy::give_up`] has passed since the first attempt; then it is dead until an operator replays it. A webhook that has
//! failed [`SLOW_AFTER`] times in a row gets one attempt at a time, with pauses that double up to [`MOST_HOLD`].
//!
//! Why these are no jobs of the queue in [`super::jobs`]: a row of the log of deliveries is all that a queue would hold of it,
//! and two places would have to agree on attempts and next tries; and that library starts one job for each slot and poll.

pub mod guard;
mod send;
pub mod sign;

use std::time::Duration;

use chrono::Utc;
use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::guard::Allowed;
use self::send::{Outcome, Sender};
use super::{TaskError, Worker};
use crate::store::deliveries::{Attempt, Due, Next, SLOW_AFTER};

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
pub struct Policy {
    /// `RUNCAST_WEBHOOK_ALLOW`: where webhooks may lead beside public addresses.
    pub allowed: Allowed,
    /// `RUNCAST_WEBHOOK_TIMEOUT`: how long a receiver may take to answer.
    pub timeout: Duration,
    /// `RUNCAST_WEBHOOK_FIRST_RETRY`: the wait after the first failure.
    pub first_retry: Duration,
    /// `RUNCAST_WEBHOOK_GIVE_UP`: how long a delivery is tried.
    pub give_up: Duration,
    /// `RUNCAST_WEBHOOK_LOG`: how long ended deliveries are kept.
    pub keep: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allowed: Allowed::default(),
            timeout: Duration::from_secs(10),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

impl Policy {
    /// How long a claim lasts: an attempt, and as long again for writing it down.
    fn claim(&self) -> Duration {
        (self.timeout + MARGIN) * 2
    }

    /// What follows from an attempt.
    fn next(&self, due: &Due, outcome: &Outcome) -> Next {
        if outcome.attempt.error.is_none() {
            return Next::Delivered;
        }
        if outcome.gone {
            return Next::Gone;
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
            return Next::Dead { hold };
        }
        Next::Again { wait, hold }
    }
}

/// A random part, at least half, of `first` doubled so many times, up to `most`.
fn doubled(first: Duration, times: i32, most: Duration) -> Duration {
    let factor = 1_u32 << times.clamp(0, 24);
    let bound = first.saturating_mul(factor).min(most);
    bound.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Sends deliveries until told to stop; those under way get [`GRACE`] to end.
///
/// # Errors
/// [`TaskError`] if Postgres cannot be asked for deliveries, or no client can be made.
pub(super) async fn deliver(worker: &Worker, stop: &CancellationToken) -> Result<(), TaskError> {
    let policy = &worker.rules.webhooks;
    let sender = Sender::new(policy.allowed.clone(), policy.timeout)
        .map_err(|error| TaskError::Client(error.to_string()))?;
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
async fn attempt(worker: &Worker, sender: &Sender, claim: Uuid, due: &Due) {
    let policy = &worker.rules.webhooks;
    let limit = policy.timeout + MARGIN;
    let begun = Instant::now();
    // The client keeps its own deadline; this one holds whatever it does.
    let outcome = timeout(limit, sender.send(due)).await;
    let outcome = outcome.unwrap_or_else(|_elapsed| Outcome {
        attempt: Attempt {
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
        Next::Delivered => "delivered",
        Next::Again { .. } => "failed",
        Next::Dead { .. } | Next::Gone => "dead",
    };
    worker.meter.attempt(told, outcome.attempt.took);
    match next {
        Next::Delivered => debug!(%delivery, %webhook, "delivered"),
        Next::Again { .. } => debug!(%delivery, %webhook, error, "not delivered; trying again"),
        Next::Dead { .. } => warn!(%delivery, %webhook, error, "given up"),
        Next::Gone => warn!(%webhook, "the receiver answered 410 Gone: the webhook is disabled"),
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

/// The hourly job: gives up what cannot even be tried, and forgets what ended long ago.
///
/// # Errors
/// [`TaskError`]; what was done until then stays so.
pub(super) async fn tidy(worker: &Worker) -> Result<(), TaskError> {
    let policy = &worker.rules.webhooks;
    let (given_up, forgotten) = worker
        .store
        .tidy_deliveries(policy.give_up, policy.keep)
        .await?;
    if given_up + forgotten > 0 {
        info!(given_up, forgotten, "put deliveries of webhooks in order");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(attempts: i32, failures: i32, hours: i64) -> Due {
        Due {
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
            attempt: Attempt {
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
        let policy = Policy::default();
        let failed = outcome(Some(500), None);
        let wait = |attempts| match policy.next(&due(attempts, 0, 0), &failed) {
            Next::Again { wait, .. } => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!((5..=10).contains(&wait(0)));
        assert!((20..=40).contains(&wait(2)));
        assert!((2 * 3600..=4 * 3600).contains(&wait(30)));
        assert!(matches!(
            policy.next(&due(20, 0, 25), &failed),
            Next::Dead { .. }
        ));
        assert_eq!(
            policy.next(&due(20, 0, 25), &outcome(Some(204), None)),
            Next::Delivered
        );
        assert_eq!(
            policy.next(&due(0, 0, 0), &outcome(Some(410), None)),
            Next::Gone
        );
    }

    #[test]
    fn a_webhook_that_fails_for_long_is_slowed() {
        let policy = Policy::default();
        let hold = |failures, outcome| match policy.next(&due(0, failures, 0), &outcome) {
            Next::Again { hold, .. } => hold.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(hold(0, outcome(None, None)), 0);
        assert_eq!(hold(SLOW_AFTER - 2, outcome(None, None)), 0);
        assert!((5..=10).contains(&hold(SLOW_AFTER - 1, outcome(None, None))));
        assert!((450..=900).contains(&hold(1000, outcome(None, None))));
        assert_eq!(hold(0, outcome(Some(429), Some(77))), 77);
    }
}
