//! Webhooks: which URLs are notified of changes of runs. Their queue is in
//! [`super::webhook_deliveries`].
//!
//! Only signing reads a secret; no query that lists webhooks selects it. The audit log gets the
//! host of a webhook and not its URL, because a path often is a secret of the receiver.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
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
    pub async fn create_webhook(
        &self,
        actor: &Actor,
        new: &NewWebhook<'_>,
    ) -> Result<Option<Uuid>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let id: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO webhooks (id, url, secret, statuses, labels)
             SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM webhooks) < $6 RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(new.url)
        .bind(new.secret.expose_secret())
        .bind(new.statuses)
        .bind(Value::Object(new.labels.clone()))
        .bind(MAX_WEBHOOKS)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(id) = id {
            let details = json!({"host": host(new.url), "on": new.statuses, "labels": new.labels});
            let target = id.to_string();
            audit::record(&mut transaction, actor, "webhook.created", &target, details).await?;
        }
        transaction.commit().await?;
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
    pub async fn enable_webhook(
        &self,
        actor: &Actor,
        id: Uuid,
        enabled: bool,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query(
            "UPDATE webhooks SET enabled = $2, note = NULL, failures = 0, held_until = '-infinity' WHERE id = $1",
        )
        .bind(id)
        .bind(enabled)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let action = match enabled {
            true => "webhook.enabled",
            false => "webhook.disabled",
        };
        audit::record(&mut transaction, actor, action, &id.to_string(), json!({})).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes a webhook with all its deliveries. Returns false if it does not exist.
    pub async fn remove_webhook(&self, actor: &Actor, id: Uuid) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let url: Option<String> =
            sqlx::query_scalar("DELETE FROM webhooks WHERE id = $1 RETURNING url")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(url) = url else {
            return Ok(false);
        };
        let (target, details) = (id.to_string(), json!({"host": host(&url)}));
        audit::record(&mut transaction, actor, "webhook.removed", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Host and port of a URL, without credentials and path.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_has_neither_credentials_nor_path() {
        for (url, expected) in [
            ("https://hooks.example.com/T0/secret", "hooks.example.com"),
            ("http://me:pw@10.0.0.1:8080/?x=/@y", "10.0.0.1:8080"),
            ("https://[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(host(url), expected);
        }
    }
}
