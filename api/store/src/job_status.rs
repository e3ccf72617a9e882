//! The queue of background jobs as operators see it: how much waits, what is dead, who holds which lease, and when each
//! recurring job ran last and runs next. And the two things that can be done about a job by hand.
//!
//! The library wraps the words of a failure in the name of a type of its own, which is taken off here.
//!
//! Deliveries of webhooks are counted here as jobs of the kind [`DELIVERY`], although they have a queue of their own.

use crate::from_row::from_row;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::{Store, StoreError, without_nul};

/// The kind under which deliveries of webhooks are counted.
pub const DELIVERY: &str = "delivery";

/// Jobs of one kind, and its last and next run if it recurs.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = JobKind)]
pub struct JobKind {
    /// Its name.
    pub kind: String,
    /// Jobs that have not been tried yet.
    pub waiting: i64,
    /// Jobs that somebody does at the moment.
    pub running: i64,
    /// Jobs that have failed and will be tried again.
    pub retrying: i64,
    /// Jobs that have failed too often: an operator, or the next round of a recurring one, starts them again.
    pub dead: i64,
    /// Since when the first of those that are due has been.
    pub due_since: Option<DateTime<Utc>>,
    /// How the last failure was: of those that are not done, or of any delivery.
    pub last_error: Option<String>,
    /// When it ended last.
    pub last_run_at: Option<DateTime<Utc>>,
    /// How long that took, in milliseconds.
    pub last_run_ms: Option<i32>,
    /// How that failed, if it did.
    pub last_run_error: Option<String>,
    /// When it is put into the queue again.
    pub next_run_at: Option<DateTime<Utc>>,
}

from_row!(JobKind {
    kind,
    waiting,
    running,
    retrying,
    dead,
    due_since,
    last_error,
    last_run_at,
    last_run_ms,
    last_run_error,
    next_run_at
});

/// A lease: what only one worker does at a time.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseRow {
    /// What for.
    pub name: String,
    /// Which worker has it, or had it last.
    pub holder: Uuid,
    /// The fencing number.
    pub token: i64,
    /// Until when, if it is not renewed.
    pub expires_at: DateTime<Utc>,
    /// False if it has run out or was given back.
    pub held: bool,
}

from_row!(LeaseRow {
    name,
    holder,
    token,
    expires_at,
    held
});

/// A job that has failed too often.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadJob {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// How often it was tried.
    pub attempts: i16,
    /// How it failed last.
    pub last_error: Option<String>,
    /// When it was put into the queue.
    pub created_at: DateTime<Utc>,
    /// When it failed last.
    pub updated_at: DateTime<Utc>,
}

from_row!(DeadJob {
    id,
    kind,
    attempts,
    last_error,
    created_at,
    updated_at
});

impl Store {
    /// Counts jobs by kind and state, of all kinds that there are or that recur.
    pub async fn job_kinds(&self) -> Result<Vec<JobKind>, StoreError> {
        let kinds = sqlx::query_as(
            "SELECT coalesce(j.kind, r.name) AS kind, coalesce(waiting, 0) AS waiting,
                    coalesce(running, 0) AS running, coalesce(retrying, 0) AS retrying, coalesce(dead, 0) AS dead,
                    due_since, j.last_error, r.ended_at AS last_run_at, r.took_ms AS last_run_ms,
                    r.error AS last_run_error, r.next_at AS next_run_at
               FROM (SELECT kind, count(*) FILTER (WHERE state = 'waiting') AS waiting,
                            count(*) FILTER (WHERE state = 'running') AS running,
                            count(*) FILTER (WHERE state = 'retrying') AS retrying,
                            count(*) FILTER (WHERE state = 'dead') AS dead,
                            min(due_at) FILTER (WHERE state IN ('waiting', 'retrying') AND due_at <= now()) AS due_since,
                            (array_agg(error ORDER BY at DESC) FILTER (WHERE error IS NOT NULL))[1] AS last_error
                       FROM (SELECT task_identifier AS kind, run_at AS due_at, regexp_replace(last_error, '^TaskError\\(\"(.*)\"\\)$', '\\1') AS error,
                                    updated_at AS at,
                                    CASE WHEN locked_at IS NOT NULL THEN 'running'
                                         WHEN attempts >= max_attempts THEN 'dead'
                                         WHEN attempts > 0 THEN 'retrying' ELSE 'waiting' END AS state
                               FROM tasks.jobs
                             UNION ALL
                             SELECT $1, due_at, NULL, NULL,
                                    CASE WHEN state = 'dead' THEN 'dead'
                                         WHEN claimed_until >= now() THEN 'running'
                                         WHEN attempts > 0 THEN 'retrying' ELSE 'waiting' END
                               FROM webhook_deliveries WHERE state <> 'delivered'
                             UNION ALL
                             (SELECT $1, NULL, error, at, 'failed' FROM webhook_attempts
                               WHERE error IS NOT NULL ORDER BY at DESC LIMIT 1)) AS one
                      GROUP BY kind) AS j
               FULL JOIN (SELECT * FROM recurring_jobs UNION ALL SELECT $1, NULL, NULL, NULL, NULL) AS r
                         ON r.name = j.kind
              ORDER BY 1",
        )
        .bind(DELIVERY)
        .fetch_all(&self.pool)
        .await?;
        Ok(kinds)
    }

    /// All leases that were ever taken.
    pub async fn lease_rows(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let leases = sqlx::query_as(
            "SELECT name, holder, token, expires_at, expires_at > clock_timestamp() AS held
               FROM leases ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(leases)
    }

    /// Dead jobs with a number above `after`, in the order of their numbers.
    pub async fn dead_jobs(&self, after: i64, limit: u16) -> Result<Vec<DeadJob>, StoreError> {
        let jobs = sqlx::query_as(
            "SELECT id, task_identifier AS kind, attempts, created_at, updated_at,
                    regexp_replace(last_error, '^TaskError\\(\"(.*)\"\\)$', '\\1') AS last_error
               FROM tasks.jobs
              WHERE attempts >= max_attempts AND locked_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(jobs)
    }

    /// Makes a job due now, with all its attempts; false if there is no such one, or if it runs at the moment.
    pub async fn retry_job(&self, id: i64) -> Result<bool, StoreError> {
        let done =
            sqlx::query("SELECT FROM tasks.reschedule_jobs(ARRAY[$1::bigint], now(), NULL, 0)")
                .bind(id)
                .fetch_optional(&self.pool)
                .await?;
        Ok(done.is_some())
    }

    /// Takes a job off the queue; false if there is no such one, or if it runs at the moment.
    pub async fn drop_job(&self, id: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("SELECT FROM tasks.complete_jobs(ARRAY[$1::bigint])")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(done.is_some())
    }

    /// Notes how a recurring job went.
    pub async fn note_job(
        &self,
        name: &str,
        took: Duration,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recurring_jobs (name, ended_at, took_ms, error) VALUES ($1, now(), $2, $3)
             ON CONFLICT (name) DO UPDATE SET ended_at = excluded.ended_at, took_ms = excluded.took_ms,
                    error = excluded.error",
        )
        .bind(name)
        .bind(i32::try_from(took.as_millis()).unwrap_or(i32::MAX))
        .bind(error.map(without_nul))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Notes when recurring jobs are put into the queue again.
pub(super) async fn note_next(
    connection: &mut PgConnection,
    names: &[&str],
    wait: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO recurring_jobs (name, next_at)
         SELECT name, now() + make_interval(secs => $2) FROM unnest($1::text[]) AS name
         ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at",
    )
    .bind(names)
    .bind(wait.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
