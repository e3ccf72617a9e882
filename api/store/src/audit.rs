//! The audit log: changes of permissions, of webhooks, jobs and dead letters; runs that are
//! created, held, deleted or commanded; exports, and reads if that is set. A change and its entry
//! are written in one transaction. Entries are read by pages and removed when they are old.

use std::net::IpAddr;

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// Entries deleted by one statement.
const BATCH_ROWS: i64 = 1000;

/// The user, token or operator that makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user or the token; none for the operator, or if it is not known.
    pub id: Option<Uuid>,
    /// Their name at that time.
    pub name: String,
    /// The address of the client; none for the operator, or if it is not known.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The operator: a person who has the database's address and runs `runcastd`.
    pub fn operator() -> Self {
        Self {
            id: None,
            name: "runcastd".to_owned(),
            address: None,
        }
    }
}

/// One entry.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The user or token that made the change; none for the operator.
    pub actor: Option<Uuid>,
    /// Name of the actor at that time.
    pub actor_name: String,
    /// The address of the client; absent for the operator, and where it is not known.
    pub address: Option<String>,
    /// What was done, such as `user.disabled`.
    pub action: String,
    /// What the action changed.
    pub target: Option<String>,
    /// More about the action.
    #[schema(value_type = Object)]
    pub details: Value,
}

from_row!(AuditEntry {
    id,
    at,
    actor,
    actor_name,
    address,
    action,
    target,
    details
});

/// Which entries to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only entries before this one.
    pub before: Option<i64>,
    /// Only actions of this user or token, by id or name.
    pub actor: Option<String>,
    /// Only this action or, if it ends in a dot, all actions that begin with it: `user.`.
    pub action: Option<String>,
    /// How many at most.
    pub limit: u16,
}

/// Writes an entry. It becomes visible when the transaction commits.
pub(super) async fn record(
    connection: &mut PgConnection,
    actor: &Actor,
    action: &str,
    target: &str,
    details: Value,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_log (actor, actor_name, address, action, target, details)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(actor.id)
    .bind(&actor.name)
    .bind(actor.address.map(|address| address.to_string()))
    .bind(action)
    .bind(target)
    .bind(details)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Writes an entry for an action that changes no row.
    pub async fn audit(
        &self,
        actor: &Actor,
        action: &str,
        target: &str,
        details: Value,
    ) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        record(&mut connection, actor, action, target, details).await
    }

    /// Removes entries older than the horizon, oldest first, and returns how many. Ids grow with
    /// time, so each statement reads only the oldest entries. If a batch fails, earlier batches
    /// stay removed and the next call continues.
    pub async fn remove_audit_before(&self, horizon: DateTime<Utc>) -> Result<u64, StoreError> {
        let mut entries = 0;
        loop {
            let deleted = sqlx::query(
                "DELETE FROM audit_log WHERE id IN (
                     SELECT id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT $2) AS oldest WHERE at < $1)",
            )
            .bind(horizon)
            .bind(BATCH_ROWS)
            .execute(&self.pool)
            .await?;
            if deleted.rows_affected() == 0 {
                return Ok(entries);
            }
            entries += deleted.rows_affected();
        }
    }

    /// Entries, newest first.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let actor = filter.actor.as_deref();
        let entries = sqlx::query_as(
            "SELECT id, at, actor, actor_name, address, action, target, details FROM audit_log
              WHERE ($1::bigint IS NULL OR id < $1)
                AND ($2::uuid IS NULL OR actor = $2) AND ($3::text IS NULL OR actor_name = $3)
                AND ($4::text IS NULL OR action = $4 OR right($4, 1) = '.' AND starts_with(action, $4))
              ORDER BY id DESC LIMIT $5",
        )
        .bind(filter.before)
        .bind(actor.and_then(|text| Uuid::try_parse(text).ok()))
        .bind(actor.filter(|text| Uuid::try_parse(text).is_err()))
        .bind(&filter.action)
        .bind(i64::from(filter.limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(entries)
    }
}
