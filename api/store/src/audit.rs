//! What changed who may do what, or controlled a run: written in the transaction that changes it, read by pages, and removed
//! when it is old.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Entries removed in one statement.
const BATCH: i64 = 1000;

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user or the token; none for the operator's command line, and where nobody knows.
    pub id: Option<Uuid>,
    /// Their name at that time.
    pub name: String,
}

impl Actor {
    /// Whoever has the database's address and runs `runcastd`.
    pub fn operator() -> Self {
        Self {
            id: None,
            name: "runcastd".to_owned(),
        }
    }
}

/// One entry.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who, if not the operator.
    pub actor: Option<Uuid>,
    /// The name of who, at that time.
    pub actor_name: String,
    /// What, such as `user.disabled`.
    pub action: String,
    /// To whom or what.
    pub target: Option<String>,
    /// More about it.
    #[schema(value_type = Object)]
    pub details: Value,
}

from_row!(AuditEntry {
    id,
    at,
    actor,
    actor_name,
    action,
    target,
    details
});

/// Which entries to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those before this one.
    pub before: Option<i64>,
    /// Only what this user or token did, by id or name.
    pub actor: Option<String>,
    /// Only this action, or with a dot at its end all of its kind: `user.`.
    pub action: Option<String>,
    /// How many at most.
    pub limit: u16,
}

/// Writes an entry; it counts once the transaction commits.
pub(super) async fn note(
    connection: &mut PgConnection,
    actor: &Actor,
    action: &str,
    target: &str,
    details: Value,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_log (actor, actor_name, action, target, details) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(actor.id)
    .bind(&actor.name)
    .bind(action)
    .bind(target)
    .bind(details)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Writes an entry about something that is no change of a row.
    pub async fn audit(
        &self,
        actor: &Actor,
        action: &str,
        target: &str,
        details: Value,
    ) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        note(&mut connection, actor, action, target, details).await
    }

    /// Removes the entries of before that moment, oldest first, and says how many there were. Ids grow with time, so it
    /// looks at the oldest ones alone.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then stays so, and the next call goes on.
    pub async fn remove_audit_before(&self, horizon: DateTime<Utc>) -> Result<u64, StoreError> {
        let mut entries = 0;
        loop {
            let gone = sqlx::query(
                "DELETE FROM audit_log WHERE id IN (
                     SELECT id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT $2) AS oldest WHERE at < $1)",
            )
            .bind(horizon)
            .bind(BATCH)
            .execute(&self.pool)
            .await?;
            if gone.rows_affected() == 0 {
                return Ok(entries);
            }
            entries += gone.rows_affected();
        }
    }

    /// Entries, newest first.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let actor = filter.actor.as_deref();
        let entries = sqlx::query_as(
            "SELECT id, at, actor, actor_name, action, target, details FROM audit_log
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
