//! Delivers the notifications that the database has queued
//! ([`runcast_store::webhook_deliveries`]).
//!
//! A trigger queues them, in the transaction that changes the run: two programs write statuses, and
//! a third one could not forget it. Its row is the queue as well. Deliveries are no jobs of the
//! worker's queue, because that queue and the delivery log would have to agree on attempts and next
//! tries, and because its library starts only one job for each slot and poll.
//!
//! Every worker delivers. It claims due deliveries, at most [`MAX_DELIVERIES`] in progress, and of
//! one webhook only a few over all workers, so a slow receiver delays no other. Delivery is at
//! least once: if a worker dies between sending and recording, its claim expires, and the delivery
//! is sent again with the same `webhook-id`. While no worker dies, each is sent once, because a
//! claim lasts longer than an attempt and its record can take.

use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::attempt::{Outcome, Sender};
use crate::metrics::Metrics;
use crate::settings::WebhookSettings;
use runcast_store::webhook_deliveries::{DeliveryAttempt, DueDelivery, NextAttempt};
use runcast_store::{Store, StoreError};

/// The statuses that a webhook can be notified of.
pub const NOTIFIED_STATUSES: [&str; 7] = [
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "lost",
    "sealed",
    "incomplete",
];

/// Deliveries that one worker has in progress.
const MAX_DELIVERIES: usize = 64;

/// How often each worker looks for due deliveries.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long deliveries in progress may go on after the worker was stopped.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(12);

/// What an attempt may take beyond the time that the receiver has.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(1);

/// Why deliveries cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Postgres, which holds the deliveries, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No HTTP client could be made.
    #[error("cannot make an HTTP client for webhooks: {0}")]
    Client(String),
}

/// Sends what the database has queued for webhooks. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Deliverer {
    store: Store,
    settings: WebhookSettings,
    metrics: Metrics,
}

impl Deliverer {
    /// A deliverer that reads its work from this Postgres.
    pub const fn new(store: Store, settings: WebhookSettings, metrics: Metrics) -> Self {
        Self {
            store,
            settings,
            metrics,
        }
    }

    /// Sends deliveries until `stop`. Those in progress then get [`SHUTDOWN_GRACE`] to end.
    ///
    /// # Errors
    /// [`DeliveryError`], once the deliveries in progress have ended.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), DeliveryError> {
        let sender = Sender::new(self.settings.allowed.clone(), self.settings.timeout)
            .map_err(DeliveryError::Client)?;
        let mut sending = JoinSet::new();
        let outcome = loop {
            while let Some(done) = sending.try_join_next() {
                resume_panic(done);
            }
            // Claim as many as there is room for, and send them.
            let claim = Uuid::now_v7();
            let room = MAX_DELIVERIES - sending.len();
            let claimed = self.store.claim_deliveries(claim, room, self.claim_life());
            let due = match claimed.await {
                Ok(due) => due,
                Err(error) => break Err(error.into()),
            };
            let has_more = !due.is_empty();
            for due in due {
                let (deliverer, sender) = (self.clone(), sender.clone());
                sending.spawn(async move { deliverer.deliver(&sender, claim, &due).await });
            }
            // Look again soon. Where some were due, more may be as soon as one is done.
            let pause = async {
                tokio::select! {
                    Some(done) = sending.join_next(), if has_more => resume_panic(done),
                    () = sleep(POLL_INTERVAL.mul_f64(rand::rng().random_range(0.8..=1.2))) => {}
                }
            };
            if stop.run_until_cancelled(pause).await.is_none() {
                break Ok(());
            }
        };
        let drain = async {
            while let Some(done) = sending.join_next().await {
                resume_panic(done);
            }
        };
        if timeout(SHUTDOWN_GRACE, drain).await.is_err() {
            info!("deliveries are still in progress; they will be sent again");
        }
        outcome
    }

    /// The hourly job: gives up deliveries that cannot even be tried, and deletes those that
    /// finished long ago.
    ///
    /// # Errors
    /// [`StoreError`]; what was done until then stays so.
    pub async fn clean_up(&self) -> Result<(), StoreError> {
        let (given_up, deleted) = self
            .store
            .tidy_deliveries(self.settings.give_up, self.settings.keep)
            .await?;
        if given_up + deleted > 0 {
            info!(given_up, deleted, "removed old webhook deliveries");
        }
        Ok(())
    }

    /// How long a claim lasts: an attempt, and as long again for recording it.
    fn claim_life(&self) -> Duration {
        self.attempt_deadline() * 2
    }

    fn attempt_deadline(&self) -> Duration {
        self.settings.timeout + ATTEMPT_MARGIN
    }

    /// Sends one delivery and records the outcome.
    async fn deliver(&self, sender: &Sender, claim: Uuid, due: &DueDelivery) {
        let started = Instant::now();
        // The client has a deadline of its own; this one holds whatever the client does.
        let outcome = timeout(self.attempt_deadline(), sender.send(due)).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| Outcome {
            attempt: DeliveryAttempt {
                took: started.elapsed(),
                status: None,
                error: Some("no answer in time".to_owned()),
            },
            is_gone: false,
            retry_after: None,
        });
        let next = self.settings.next_attempt(due, &outcome);
        let (delivery, webhook) = (due.id, due.webhook);
        let error = outcome.attempt.error.as_deref().unwrap_or_default();
        let label = match next {
            NextAttempt::Delivered => "delivered",
            NextAttempt::Again { .. } => "failed",
            NextAttempt::Dead { .. } | NextAttempt::Gone => "dead",
        };
        self.metrics.count_attempt(label, outcome.attempt.took);
        match next {
            NextAttempt::Delivered => debug!(%delivery, %webhook, "delivered"),
            NextAttempt::Again { .. } => {
                debug!(%delivery, %webhook, error, "not delivered; trying again");
            }
            NextAttempt::Dead { .. } => {
                warn!(%delivery, %webhook, error,
                    "gave up a delivery; `runcastd webhook replay` sends it again");
            }
            NextAttempt::Gone => {
                warn!(%webhook, "the receiver answered 410 Gone: the webhook is disabled");
            }
        }
        self.record(claim, due, &outcome.attempt, next).await;
    }

    /// Records an attempt, and repeats that while Postgres fails. If it cannot, the claim expires
    /// and the attempt is made again.
    async fn record(
        &self,
        claim: Uuid,
        due: &DueDelivery,
        attempt: &DeliveryAttempt,
        next: NextAttempt,
    ) {
        let (delivery, webhook) = (due.id, due.webhook);
        let recorded = async {
            let mut backoff = Backoff::for_connections();
            loop {
                match self.store.note_attempt(claim, due, attempt, next).await {
                    Ok(is_ours) => return is_ours,
                    Err(error) => debug!(%error, %delivery, "cannot record an attempt yet"),
                }
                sleep(backoff.next_wait()).await;
            }
        };
        match timeout(self.attempt_deadline(), recorded).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(%delivery, "the delivery was removed, or another worker sent it as well");
            }
            Err(_elapsed) => {
                warn!(%delivery, %webhook, "cannot record an attempt; it will be made again");
            }
        }
    }
}

/// A panic of a delivery is a panic of the deliverer.
fn resume_panic(done: Result<(), JoinError>) {
    if let Err(failed) = done
        && failed.is_panic()
    {
        std::panic::resume_unwind(failed.into_panic());
    }
}
