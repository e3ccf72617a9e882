//! What services do about a database that was restored to an older state: they notice it by a mark,
//! and create the runs again that only Redis knows.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::Store;

/// What a run is called that was created again: its name was lost.
const RECOVERED_NAME: &str = "recovered after a restore of the database";

/// Which state a database is in: it changes every few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseMark {
    /// Random; never used twice.
    pub mark: Uuid,
    /// When it was written, by the clock of Postgres, in ms.
    pub marked_ms: i64,
}

impl Store {
    /// Changes the mark of the database. Returns the one before and the new one.
    pub async fn change_mark(&self) -> Result<(DatabaseMark, DatabaseMark), StoreError> {
        let (old, old_at, new, new_at): (Uuid, DateTime<Utc>, Uuid, DateTime<Utc>) =
            sqlx::query_as(
                "WITH old AS (SELECT mark, marked_at FROM database_mark FOR UPDATE)
                 UPDATE database_mark AS new SET mark = $1, marked_at = clock_timestamp() FROM old
                 RETURNING old.mark, old.marked_at, new.mark, new.marked_at",
            )
            .bind(Uuid::new_v4())
            .fetch_one(&self.pool)
            .await?;
        let mark = |mark, at: DateTime<Utc>| DatabaseMark {
            mark,
            marked_ms: at.timestamp_millis(),
        };
        Ok((mark(old, old_at), mark(new, new_at)))
    }

    /// Creates runs again that Postgres does not know, and that were not deleted. Their names,
    /// labels and tokens are lost. Returns those that were created.
    pub async fn recreate_runs(&self, runs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let created: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO runs (id, name, labels, variations, created_by)
             SELECT id, $2, '{\"recovered\": \"true\"}', 1, $3 FROM unnest($1::uuid[]) AS id
              WHERE NOT EXISTS (SELECT FROM runs_gone WHERE run_id = id)
                AND NOT EXISTS (SELECT FROM deleted_runs WHERE run_id = id)
             ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(runs)
        .bind(RECOVERED_NAME)
        .bind(Actor::operator().name)
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO variations (run_id, variation) SELECT unnest($1::uuid[]), 0")
            .bind(&created)
            .execute(&mut *transaction)
            .await?;
        for run in &created {
            let (target, details) = (run.to_string(), json!({}));
            let actor = Actor::operator();
            audit::record(&mut transaction, &actor, "run.recovered", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(created)
    }

    /// Notes in the audit log that the database was restored, and which changes are undone: those
    /// between two times in ms, of which the second is not always known.
    pub async fn note_restore(
        &self,
        from_ms: i64,
        to_ms: Option<i64>,
        queued_runs: u64,
    ) -> Result<(), StoreError> {
        let to = to_ms.and_then(DateTime::from_timestamp_millis);
        let from = DateTime::from_timestamp_millis(from_ms);
        let details = json!({"from": from, "to": to, "queued_runs": queued_runs});
        self.audit(&Actor::operator(), "database.restored", "", details)
            .await
    }
}
