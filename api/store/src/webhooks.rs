//! Webhooks: which URLs are notified of changes of runs. Their queue is in
//! [`super::webhook_deliveries`].
//!
//! Only signing reads a secret; no query that lists webhooks selects it.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// Upper bound of the number of webhooks: each status change of a run is compared with all of them.
pub const MAX_WEBHOOKS: i64 = 200;

/// A webhook to create.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Where to send.
    pub url: &'a str,
    /// The secret that signs its deliveries.
    pub secret: &'a SecretSlice<u8>,
    /// The statuses of which it is notified.
    pub statuses: &'a [String],
    /// Only runs with all of these labels.
    pub labels: &'a Map<String, Value>,
}

/// A webhook, as the API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Where to send.
    pub url: String,
    /// The statuses of which it is notified.
    pub statuses: Vec<String>,
    /// Only runs with all of these labels.
    #[schema(value_type = HashMap<String, String>)]
    pub labels: Value,
    /// False if nothing is sent.
    pub enabled: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Failed attempts in a row.
    pub failures: i32,
    /// Nothing is sent before this time, because it fails.
    pub held_until: Option<DateTime<Utc>>,
    /// Why it was disabled, if not by a person.
    pub note: Option<String>,
    /// Waiting deliveries.
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
    /// Creates a webhook. Returns none if there are [`MAX_WEBHOOKS`] already.
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
        .bind(MAX_WEBHOOKS)
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

    /// Enables or disables a webhook. Waiting deliveries keep waiting. Returns false if it does not
    /// exist.
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

    /// Removes a webhook with all its deliveries. Returns false if it does not exist.
    pub async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM webhooks WHERE id = $1")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
