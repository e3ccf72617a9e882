//! Deliveries of webhooks: what there is to send, who sends it, and the log of what became of it.
//!
//! A row is written by the schema, in the transaction that changes a run (`0008_webhooks.sql`). It is the queue, too:
//! a worker claims rows that are due for longer than an attempt can take, and a claim that runs out (its worker died)
//! makes them due again. Claims of one webhook are made one after the other, under the lock of its row, so that the
//! number of its deliveries under way is bounded over all workers. Whoever changes both locks the webhook first.

use crate::from_row::from_row;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretSlice;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::{Store, StoreError, without_nul};

/// Deliveries of one webhook that are under way at the same time.
const AT_ONCE: i32 = 4;

/// Failures in a row from which on only one is, and only after a pause.
pub const SLOW_AFTER: i32 = 5;

/// Ended deliveries, and such that are too old, dealt with by one statement.
const BATCH: i64 = 1000;

/// A delivery that this worker is to send.
#[derive(Debug)]
pub struct DueDelivery {
    /// Its id, the receiver's `webhook-id`.
    pub id: Uuid,
    /// To which webhook.
    pub webhook: Uuid,
    /// Where that is.
    pub url: String,
    /// What it is signed with.
    pub secret: SecretSlice<u8>,
    /// What to send.
    pub body: String,
    /// Attempts before this one.
    pub attempts: i32,
    /// Failures of the webhook in a row.
    pub failures: i32,
    /// When it was tried first; none if this is the first time.
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

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// How long it took.
    pub took: Duration,
    /// The status of the answer.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Nothing: it was delivered.
    Delivered,
    /// Another attempt after `wait`; and nothing for the webhook before `hold`.
    Again {
        /// Until the next attempt.
        wait: Duration,
        /// Until anything is sent to this webhook.
        hold: Duration,
    },
    /// No further attempt; nothing for the webhook before `hold`.
    Dead {
        /// Until anything is sent to this webhook.
        hold: Duration,
    },
    /// No further attempt, for any delivery: the receiver wants no more.
    Gone,
}

/// A delivery as the log shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id, the receiver's `webhook-id`.
    pub id: Uuid,
    /// To which webhook.
    pub webhook: Uuid,
    /// Of which run.
    pub run_id: Option<Uuid>,
    /// Of what it tells, such as `run.failed`.
    pub event: String,
    /// `waiting`, `delivered` or `dead`.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the run changed.
    pub created_at: DateTime<Utc>,
    /// When it is tried next, if it waits.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was delivered or given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it was tried last.
    pub tried_at: Option<DateTime<Utc>>,
    /// How long that took, in milliseconds.
    pub took_ms: Option<i32>,
    /// What the receiver answered then.
    pub status: Option<i16>,
    /// What went wrong then.
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
#[schema(as = DeliveryAttempt)]
pub struct PastAttempt {
    /// Which one, from 1.
    pub number: i32,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub took_ms: i32,
    /// What the receiver answered.
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
    /// Claims deliveries that are due, `room` at most, for so long. Answers those that this worker is to send.
    pub async fn claim_deliveries(
        &self,
        claim: Uuid,
        room: usize,
        life: Duration,
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
        .bind(life.as_secs_f64())
        .bind(i64::try_from(room).unwrap_or(i64::MAX))
        .bind(AT_ONCE)
        .bind(SLOW_AFTER)
        .fetch_all(&self.pool)
        .await?;
        Ok(due)
    }

    /// Writes down how an attempt went. False if the delivery is not this claim's any more (it took too long and
    /// another worker sends it), or is gone; a success counts all the same.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is written.
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

    /// Puts a delivery of a test into line; none if there is no such webhook.
    pub async fn test_webhook(&self, webhook: Uuid) -> Result<Option<Uuid>, StoreError> {
        let id = sqlx::query_scalar(
            "INSERT INTO webhook_deliveries (webhook, event, body)
             SELECT id, 'test', jsonb_build_object('type', 'test', 'timestamp', now(),
                        'data', jsonb_build_object('webhook', id))::text
               FROM webhooks WHERE id = $1 FOR KEY SHARE RETURNING id",
        )
        .bind(webhook)
        .fetch_optional(&self.pool)
        .await?;
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

    /// What a delivery sends, and all its attempts, in their order; none if there is no such one.
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
        let tried = sqlx::query_as(
            "SELECT number, at, took_ms, status, error FROM webhook_attempts
              WHERE delivery = $1 ORDER BY number",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        Ok(Some((body, tried)))
    }

    /// Lets ended deliveries be sent again, now, with their ids: one, or all dead ones of a webhook. Says how many.
    pub async fn replay_deliveries(
        &self,
        only: Option<Uuid>,
        dead_of: Option<Uuid>,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE webhook_deliveries SET state = 'waiting', due_at = now(), tried_since = NULL, ended_at = NULL
              WHERE (id = $1 AND state <> 'waiting') OR (webhook = $2 AND state = 'dead')",
        )
        .bind(only)
        .bind(dead_of)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Gives up what has waited for longer than `patience` (its webhook is held or disabled), and forgets what ended
    /// longer ago than `keep`. Says how many of each.
    ///
    /// # Errors
    /// [`StoreError`]; what was done until then stays so.
    pub async fn tidy_deliveries(
        &self,
        patience: Duration,
        keep: Duration,
    ) -> Result<(u64, u64), StoreError> {
        let give_up = "UPDATE webhook_deliveries SET state = 'dead', ended_at = now() WHERE id IN (
                 SELECT id FROM webhook_deliveries WHERE state = 'waiting' AND claimed_until < now()
                    AND coalesce(tried_since, due_at) < now() - make_interval(secs => $1)
                  LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let forget = "DELETE FROM webhook_deliveries WHERE id IN (
                 SELECT id FROM webhook_deliveries WHERE state <> 'waiting'
                    AND ended_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)";
        Ok((
            self.in_batches(give_up, patience).await?,
            self.in_batches(forget, keep).await?,
        ))
    }

    async fn in_batches(&self, statement: &'static str, age: Duration) -> Result<u64, StoreError> {
        let mut rows = 0;
        loop {
            let done = sqlx::query(statement)
                .bind(age.as_secs_f64())
                .bind(BATCH)
                .execute(&self.pool)
                .await?;
            rows += done.rows_affected();
            if done.rows_affected() == 0 {
                return Ok(rows);
            }
        }
    }
}
