//! Deliveries of webhooks: what is to be sent, which worker sends it, and the log of the attempts.
//!
//! The schema writes a row in the transaction that changes a run (`0008_webhooks.sql`). The rows
//! are the queue, too: a worker claims due rows for longer than an attempt can take, and a claim
//! that expires, because its worker died, makes them due again. Claims for one webhook are made one
//! after the other, under the lock of its row, which bounds its deliveries in progress over all
//! workers. Every transaction that changes both locks the webhook first.

use std::time::Duration;

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use secrecy::SecretSlice;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::{Store, without_nul};

/// Deliveries of one webhook that are in progress at the same time.
const MAX_CONCURRENT_DELIVERIES: i32 = 4;

/// After this many failures in a row, a webhook gets one delivery at a time, and only after a
/// pause.
pub const SLOW_AFTER: i32 = 5;

/// Ended or too old deliveries that one statement changes.
const BATCH_ROWS: i64 = 1000;

/// A delivery that this worker has claimed.
#[derive(Debug)]
pub struct DueDelivery {
    /// Its id, the receiver's `webhook-id`.
    pub id: Uuid,
    /// Its webhook.
    pub webhook: Uuid,
    /// URL of the webhook.
    pub url: String,
    /// The secret that signs it.
    pub secret: SecretSlice<u8>,
    /// The body to send.
    pub body: String,
    /// Attempts before this one.
    pub attempts: i32,
    /// Failures of the webhook in a row.
    pub failures: i32,
    /// When it was first attempted; none if this is the first attempt.
    pub tried_since: Option<DateTime<Utc>>,
}

from_row!(DueDelivery {
    id,
    webhook,
    url,
    secret: bytes,
    body,
    attempts,
    failures,
    tried_since
});

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// Its duration.
    pub took: Duration,
    /// HTTP status of the response.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Nothing: it was delivered.
    Delivered,
    /// Another attempt after `wait`, and nothing for the webhook before `hold`.
    Again {
        /// Time until the next attempt.
        wait: Duration,
        /// Time in which nothing is sent to this webhook.
        hold: Duration,
    },
    /// No further attempt, and nothing for the webhook before `hold`.
    Dead {
        /// Time in which nothing is sent to this webhook.
        hold: Duration,
    },
    /// No further attempt for any delivery: the receiver wants no more.
    Gone,
}

/// A delivery, as the log returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id, the receiver's `webhook-id`.
    pub id: Uuid,
    /// Its webhook.
    pub webhook: Uuid,
    /// The run that changed.
    pub run_id: Option<Uuid>,
    /// What happened, such as `run.failed`.
    pub event: String,
    /// `waiting`, `delivered` or `dead`.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the run changed.
    pub created_at: DateTime<Utc>,
    /// When the next attempt is due, if it waits.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was delivered or given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// When the last attempt ended.
    pub tried_at: Option<DateTime<Utc>>,
    /// Duration of the last attempt, in milliseconds.
    pub took_ms: Option<i32>,
    /// HTTP status of the last response.
    pub status: Option<i16>,
    /// Error of the last attempt.
    pub error: Option<String>,
}

from_row!(Delivery {
    id,
    webhook,
    run_id,
    event,
    state,
    attempts,
    created_at,
    due_at,
    ended_at,
    tried_at,
    took_ms,
    status,
    error
});

/// One attempt of a delivery, as the log keeps it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct PastAttempt {
    /// Its number, from 1.
    pub number: i32,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Its duration, in milliseconds.
    pub took_ms: i32,
    /// HTTP status of the response.
    pub status: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
}

from_row!(PastAttempt {
    number,
    at,
    took_ms,
    status,
    error
});

/// Which deliveries to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only of this webhook.
    pub webhook: Option<Uuid>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only this one.
    pub only: Option<Uuid>,
    /// How many at most.
    pub limit: u16,
}

impl Store {
    /// Claims at most `limit` due deliveries for this duration, and returns them.
    pub async fn claim_deliveries(
        &self,
        claim: Uuid,
        limit: usize,
        duration: Duration,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let due = sqlx::query_as(
            "WITH hooks AS MATERIALIZED (
                 SELECT w.id, CASE WHEN w.failures >= $5 THEN 1 ELSE $4 END
                        - (SELECT count(*) FROM webhook_deliveries c WHERE c.webhook = w.id
                              AND c.state = 'waiting' AND c.claimed_until >= now()) AS free
                   FROM webhooks w
                  WHERE w.enabled AND w.held_until <= now()
                    AND EXISTS (SELECT FROM webhook_deliveries d WHERE d.webhook = w.id
                                   AND d.state = 'waiting' AND d.due_at <= now() AND d.claimed_until < now())
                  ORDER BY random() FOR NO KEY UPDATE OF w SKIP LOCKED),
             due AS MATERIALIZED (
                 SELECT one.id FROM hooks CROSS JOIN LATERAL (
                     SELECT d.id FROM webhook_deliveries d
                      WHERE d.webhook = hooks.id AND d.state = 'waiting' AND d.due_at <= now()
                        AND d.claimed_until < now()
                      ORDER BY d.due_at LIMIT greatest(hooks.free, 0)) AS one LIMIT $3)
             UPDATE webhook_deliveries d SET claim = $1, claimed_until = now() + make_interval(secs => $2)
               FROM due, webhooks w WHERE d.id = due.id AND w.id = d.webhook
             RETURNING d.id, d.webhook, w.url, w.secret, d.body, d.attempts, w.failures, d.tried_since",
        )
        .bind(claim)
        .bind(duration.as_secs_f64())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(MAX_CONCURRENT_DELIVERIES)
        .bind(SLOW_AFTER)
        .fetch_all(&self.pool)
        .await?;
        Ok(due)
    }

    /// Records how an attempt ended. Returns false if the delivery does not exist any more, or if
    /// the claim has expired and another worker sends it. A success is recorded even after the
    /// claim expired.
    pub async fn note_attempt(
        &self,
        claim: Uuid,
        due: &DueDelivery,
        attempt: &DeliveryAttempt,
        next: NextAttempt,
    ) -> Result<bool, StoreError> {
        let (state, wait, hold) = match next {
            NextAttempt::Delivered => ("delivered", Duration::ZERO, None),
            NextAttempt::Again { wait, hold } => ("waiting", wait, Some(hold)),
            NextAttempt::Dead { hold } => ("dead", Duration::ZERO, Some(hold)),
            NextAttempt::Gone => ("dead", Duration::ZERO, Some(Duration::ZERO)),
        };
        let mut transaction = self.pool.begin().await?;
        // The webhook is locked before the delivery, as in all transactions that change both.
        sqlx::query(
            "UPDATE webhooks SET failures = CASE WHEN $2 THEN 0 ELSE failures + 1 END,
                    held_until = CASE WHEN $2 THEN '-infinity' ELSE now() + make_interval(secs => $3) END,
                    enabled = enabled AND NOT $4,
                    note = CASE WHEN $4 THEN 'the receiver answered 410 Gone' ELSE note END
              WHERE id = $1",
        )
        .bind(due.webhook)
        .bind(hold.is_none())
        .bind(hold.unwrap_or_default().as_secs_f64())
        .bind(next == NextAttempt::Gone)
        .execute(&mut *transaction)
        .await?;
        let number: Option<i32> = sqlx::query_scalar(
            "UPDATE webhook_deliveries SET state = $3, attempts = attempts + 1, claim = NULL,
                    claimed_until = '-infinity', due_at = now() + make_interval(secs => $4),
                    tried_since = coalesce(tried_since, now()),
                    ended_at = CASE WHEN $3 <> 'waiting' THEN now() END
              WHERE id = $1 AND state = 'waiting' AND (claim = $2 OR $3 = 'delivered') RETURNING attempts",
        )
        .bind(due.id)
        .bind(claim)
        .bind(state)
        .bind(wait.as_secs_f64())
        .fetch_optional(&mut *transaction)
        .await?;
        // Without a row, the claim or the delivery is gone, and the transaction rolls back.
        let Some(number) = number else {
            return Ok(false);
        };
        sqlx::query(
            "INSERT INTO webhook_attempts (delivery, number, took_ms, status, error)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(due.id)
        .bind(number)
        .bind(i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX))
        .bind(attempt.status.and_then(|status| i16::try_from(status).ok()))
        .bind(attempt.error.as_deref().map(without_nul))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Queues a test delivery. Returns none if the webhook does not exist.
    pub async fn test_webhook(
        &self,
        actor: &Actor,
        webhook: Uuid,
    ) -> Result<Option<Uuid>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let id: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO webhook_deliveries (webhook, event, body)
             SELECT id, 'test', jsonb_build_object('type', 'test', 'timestamp', now(),
                        'data', jsonb_build_object('webhook', id))::text
               FROM webhooks WHERE id = $1 FOR KEY SHARE RETURNING id",
        )
        .bind(webhook)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(id) = id {
            let (target, details) = (webhook.to_string(), json!({"delivery": id}));
            audit::record(&mut transaction, actor, "webhook.tested", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(id)
    }

    /// Deliveries, newest first, each with its last attempt.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
        let list = sqlx::query_as(
            "SELECT d.id, d.webhook, d.run_id, d.event, d.state, d.attempts, d.created_at, d.ended_at,
                    CASE WHEN d.state = 'waiting' THEN d.due_at END AS due_at,
                    a.at AS tried_at, a.took_ms, a.status, a.error
               FROM webhook_deliveries d
               LEFT JOIN webhook_attempts a ON a.delivery = d.id AND a.number = d.attempts
              WHERE ($1::uuid IS NULL OR d.webhook = $1) AND ($2::text IS NULL OR d.state = $2)
                AND ($3::uuid IS NULL OR d.id = $3)
              ORDER BY d.created_at DESC, d.id LIMIT $4",
        )
        .bind(filter.webhook)
        .bind(&filter.state)
        .bind(filter.only)
        .bind(i64::from(filter.limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(list)
    }

    /// Body and attempts of a delivery, in order; none if it does not exist.
    pub async fn delivery_log(
        &self,
        id: Uuid,
    ) -> Result<Option<(String, Vec<PastAttempt>)>, StoreError> {
        let body: Option<String> =
            sqlx::query_scalar("SELECT body FROM webhook_deliveries WHERE id = $1")
                .bind(id)
                .fetch_optional(&self.pool)
                .await?;
        let Some(body) = body else {
            return Ok(None);
        };
        let attempts = sqlx::query_as(
            "SELECT number, at, took_ms, status, error FROM webhook_attempts
              WHERE delivery = $1 ORDER BY number",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        Ok(Some((body, attempts)))
    }

    /// Queues ended deliveries again, with their ids: one delivery, or all dead ones of a webhook.
    /// Returns how many.
    pub async fn replay_deliveries(
        &self,
        actor: &Actor,
        only: Option<Uuid>,
        dead_of: Option<Uuid>,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query(
            "UPDATE webhook_deliveries SET state = 'waiting', due_at = now(), tried_since = NULL, ended_at = NULL
              WHERE (id = $1 AND state <> 'waiting') OR (webhook = $2 AND state = 'dead')",
        )
        .bind(only)
        .bind(dead_of)
        .execute(&mut *transaction)
        .await?;
        let count = done.rows_affected();
        if count > 0 {
            let target = only.or(dead_of).unwrap_or_default().to_string();
            let details = json!({"deliveries": count});
            audit::record(
                &mut transaction,
                actor,
                "webhook.replayed",
                &target,
                details,
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(count)
    }

    /// Gives up deliveries that have waited for longer than `max_wait` (their webhook is paused or
    /// disabled), and deletes those that ended longer than `keep` ago. Returns how many of each. If
    /// a batch fails, earlier batches stay committed.
    pub async fn tidy_deliveries(
        &self,
        max_wait: Duration,
        keep: Duration,
    ) -> Result<(u64, u64), StoreError> {
        let give_up = "UPDATE webhook_deliveries SET state = 'dead', ended_at = now() WHERE id IN (
                 SELECT id FROM webhook_deliveries WHERE state = 'waiting' AND claimed_until < now()
                    AND coalesce(tried_since, due_at) < now() - make_interval(secs => $1)
                  LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let delete = "DELETE FROM webhook_deliveries WHERE id IN (
                 SELECT id FROM webhook_deliveries WHERE state <> 'waiting'
                    AND ended_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)";
        Ok((
            self.execute_in_batches(give_up, max_wait).await?,
            self.execute_in_batches(delete, keep).await?,
        ))
    }

    async fn execute_in_batches(
        &self,
        statement: &'static str,
        age: Duration,
    ) -> Result<u64, StoreError> {
        let mut rows = 0;
        loop {
            let done = sqlx::query(statement)
                .bind(age.as_secs_f64())
                .bind(BATCH_ROWS)
                .execute(&self.pool)
                .await?;
            rows += done.rows_affected();
            if done.rows_affected() == 0 {
                return Ok(rows);
            }
        }
    }
}
