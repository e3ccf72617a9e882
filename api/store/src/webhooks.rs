//! Webhooks: to whom changes of runs are told. What is to be sent stands in [`super::webhook_deliveries`].
//!
//! A secret is read for signing alone; nothing that lists webhooks selects it.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Webhooks that there may be: each status of a run is compared with all of them.
pub const MOST_WEBHOOKS: i64 = 200;

/// What a new webhook is made of.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Where to send.
    pub url: &'a str,
    /// What its deliveries are signed with.
    pub secret: &'a SecretSlice<u8>,
    /// Of what it is told.
    pub statuses: &'a [String],
    /// Only runs with all of these labels.
    pub labels: &'a Map<String, Value>,
}

/// A webhook as it is shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Where to send.
    pub url: String,
    /// Of what it is told.
    pub statuses: Vec<String>,
    /// Only runs with all of these labels.
    #[schema(value_type = HashMap<String, String>)]
    pub labels: Value,
    /// False if nothing is sent.
    pub enabled: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Attempts in a row that failed.
    pub failures: i32,
    /// Nothing is sent before this moment, because it fails.
    pub held_until: Option<DateTime<Utc>>,
    /// Why it was disabled, if not by a person.
    pub note: Option<String>,
    /// Deliveries that wait.
    pub waiting: i64,
    /// Deliveries that were given up.
    pub dead: i64,
}

from_row!(Webhook {
    id,
    url,
    statuses,
    labels,
    enabled,
    created_at,
    failures,
    held_until,
    note,
    waiting,
    dead
});

impl Store {
    /// Makes a webhook; none if there are [`MOST_WEBHOOKS`] already.
    pub async fn create_webhook(&self, new: &NewWebhook<'_>) -> Result<Option<Uuid>, StoreError> {
        let id = sqlx::query_scalar(
            "INSERT INTO webhooks (id, url, secret, statuses, labels)
             SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM webhooks) < $6 RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(new.url)
        .bind(new.secret.expose_secret())
        .bind(new.statuses)
        .bind(Value::Object(new.labels.clone()))
        .bind(MOST_WEBHOOKS)
        .fetch_optional(&self.pool)
        .await?;
        Ok(id)
    }

    /// All webhooks, oldest first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let list = sqlx::query_as(
            "SELECT id, url, statuses, labels, enabled, created_at, failures, note,
                    CASE WHEN held_until > now() THEN held_until END AS held_until,
                    (SELECT count(*) FROM webhook_deliveries d WHERE webhook = w.id AND state = 'waiting') AS waiting,
                    (SELECT count(*) FROM webhook_deliveries d WHERE webhook = w.id AND state = 'dead') AS dead
               FROM webhooks w ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(list)
    }

    /// Enables or disables a webhook; what waits then waits on. False if there is no such one.
    pub async fn enable_webhook(&self, id: Uuid, enabled: bool) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE webhooks SET enabled = $2, note = NULL, failures = 0, held_until = '-infinity' WHERE id = $1",
        )
        .bind(id)
        .bind(enabled)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes a webhook with all its deliveries; false if there is no such one.
    pub async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM webhooks WHERE id = $1")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
