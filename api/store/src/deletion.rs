//! Deletes a run on request: for readers and publishers at once, and what is stored of it soon
//! after.
//!
//! One transaction ends the run: it records the run in `deleted_runs`, marks its archived objects
//! for deletion, deletes its row with all that hangs on it (variations, producers, agents, tokens),
//! its dead letters and the webhook deliveries that tell of it, writes the audit entry, and queues
//! the job [`DELETE_RUN`]. The job removes the rows of events, the objects, and what Redis holds,
//! and then notes that nothing is left. Each step may be repeated, so if a process dies in between,
//! the next attempt goes on; an hourly job queues what is not finished.
//!
//! The record of a deleted run is kept forever: 50 bytes that tell an agent which comes back with
//! a full spool why its run takes no events. Bounds: event rows are deleted in statements of
//! [`BATCH_ROWS`](super::retention::BATCH_ROWS).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::holds::Hold;
use super::job_queue;
use super::store::Store;
use crate::from_row::from_row;

/// The job that removes what is left of a deleted run.
pub const DELETE_RUN: &str = "delete_run";

/// A run that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeletedRun {
    /// Its id.
    #[serde(rename = "run")]
    pub run_id: Uuid,
    /// When it was deleted. Since then it cannot be read or published to.
    pub deleted_at: DateTime<Utc>,
    /// When nothing was left of its events, archived copies and keys; absent until then.
    pub removed_at: Option<DateTime<Utc>>,
    /// Agents that Postgres knew, until their keys in Redis are removed.
    #[serde(skip)]
    pub agents: Vec<Uuid>,
}

from_row!(DeletedRun {
    run_id,
    deleted_at,
    removed_at,
    agents
});

/// What became of a request to delete a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// It is deleted, by this call or an earlier one.
    Deleted(DeletedRun),
    /// It is on hold, and nothing was done.
    Held(Hold),
    /// There is no such run.
    Unknown,
}

/// What a run has when it is deleted: events, bytes, and a hold.
type Found = (
    i64,
    i64,
    Option<String>,
    Option<String>,
    Option<DateTime<Utc>>,
);

impl Store {
    /// Deletes a run, unless it is on hold. Safe to repeat.
    pub async fn delete_run(&self, actor: &Actor, run: Uuid) -> Result<Deletion, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The lock keeps persisters, retention, the archive and other deletions out.
        let found: Option<Found> = sqlx::query_as(
            "SELECT events, bytes, hold_reason, held_by, held_at FROM runs WHERE id = $1 FOR UPDATE",
        )
        .bind(run)
        .fetch_optional(&mut *transaction)
        .await?;
        let (events, bytes) = match found {
            None => {
                transaction.rollback().await?;
                let deleted = self.deleted_run(run).await?;
                return Ok(deleted.map_or(Deletion::Unknown, Deletion::Deleted));
            }
            Some((_, _, Some(reason), Some(by), Some(at))) => {
                return Ok(Deletion::Held(Hold { reason, by, at }));
            }
            Some((events, bytes, ..)) => (events, bytes),
        };
        let deleted: DeletedRun = sqlx::query_as(
            "INSERT INTO deleted_runs (run_id, agents)
             SELECT $1::uuid, coalesce(array_agg(agent), '{}') FROM agents WHERE run_id = $1
             RETURNING run_id, deleted_at, removed_at, agents",
        )
        .bind(run)
        .fetch_one(&mut *transaction)
        .await?;
        for statement in [
            "INSERT INTO runs_gone (run_id) VALUES ($1) ON CONFLICT DO NOTHING",
            "UPDATE archives SET state = 'leaving' WHERE run_id = $1 AND state <> 'leaving'",
            "DELETE FROM webhook_deliveries WHERE run_id = $1",
            "DELETE FROM dead_letters WHERE run_id = $1",
            "DELETE FROM runs WHERE id = $1",
        ] {
            sqlx::query(statement)
                .bind(run)
                .execute(&mut *transaction)
                .await?;
        }
        let details = json!({"events": events, "bytes": bytes});
        let target = run.to_string();
        audit::record(&mut transaction, actor, "run.deleted", &target, details).await?;
        job_queue::schedule_run(&mut transaction, DELETE_RUN, run).await?;
        transaction.commit().await?;
        Ok(Deletion::Deleted(deleted))
    }

    /// A run that was deleted; none for any other run.
    pub async fn deleted_run(&self, run: Uuid) -> Result<Option<DeletedRun>, StoreError> {
        let deleted = sqlx::query_as(
            "SELECT run_id, deleted_at, removed_at, agents FROM deleted_runs WHERE run_id = $1",
        )
        .bind(run)
        .fetch_optional(&self.pool)
        .await?;
        Ok(deleted)
    }

    /// Those of these runs that were deleted.
    pub async fn deleted_among(&self, runs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let deleted = sqlx::query_scalar("SELECT run_id FROM deleted_runs WHERE run_id = ANY($1)")
            .bind(runs)
            .fetch_all(&self.pool)
            .await?;
        Ok(deleted)
    }

    /// Deleted runs of which something may be left, oldest first.
    pub async fn unfinished_deletions(&self, limit: u32) -> Result<Vec<Uuid>, StoreError> {
        let runs = sqlx::query_scalar(
            "SELECT run_id FROM deleted_runs WHERE removed_at IS NULL ORDER BY run_id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(runs)
    }

    /// Notes that nothing is left of a deleted run, once the last object of the archive is gone.
    /// Returns whether that is so.
    pub async fn finish_deletion(&self, run: Uuid) -> Result<bool, StoreError> {
        let finished = sqlx::query(
            "UPDATE deleted_runs SET removed_at = coalesce(removed_at, now()), agents = '{}'
              WHERE run_id = $1 AND NOT EXISTS (SELECT FROM archives WHERE run_id = $1)
                AND NOT EXISTS (SELECT FROM runs_gone WHERE run_id = $1)",
        )
        .bind(run)
        .execute(&self.pool)
        .await?;
        Ok(finished.rows_affected() == 1)
    }
}
