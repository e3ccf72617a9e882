//! The state of background jobs for operators: how many wait, which are dead, which worker holds
//! which lease, when each recurring job ran last and runs next. Operators can retry or drop a job.
//!
//! The library wraps the error text of a job in the name of a type of its own; the queries remove
//! that.
//!
//! Webhook deliveries are counted here as jobs of the kind [`DELIVERY_KIND`], although they have a
//! queue of their own.

use std::time::Duration;

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::{Store, without_nul};

/// The kind under which webhook deliveries are counted.
pub const DELIVERY_KIND: &str = "delivery";

/// The jobs of one kind, and the last and next run if it recurs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobKind {
    /// Name of the kind.
    pub kind: String,
    /// Jobs without an attempt so far.
    pub waiting: i64,
    /// Running jobs.
    pub running: i64,
    /// Jobs that failed and will be retried.
    pub retrying: i64,
    /// Jobs that failed too often. An operator, or the next round of a recurring job, starts them
    /// again.
    pub dead: i64,
    /// When the oldest due job became due.
    pub due_since: Option<DateTime<Utc>>,
    /// Last error of jobs that are not done, or of any delivery.
    pub last_error: Option<String>,
    /// When the last run ended.
    pub last_run_at: Option<DateTime<Utc>>,
    /// Duration of the last run, in milliseconds.
    pub last_run_ms: Option<i32>,
    /// Error of the last run, if it failed.
    pub last_run_error: Option<String>,
    /// When it is queued again.
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

/// A lease, which only one worker holds at a time.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseRow {
    /// Name of the work.
    pub name: String,
    /// The worker that holds it, or held it last.
    pub holder: Uuid,
    /// The fencing number.
    pub token: i64,
    /// When it expires, unless it is renewed.
    pub expires_at: DateTime<Utc>,
    /// False if it has expired or was released.
    pub held: bool,
}

from_row!(LeaseRow {
    name,
    holder,
    token,
    expires_at,
    held
});

/// A job that failed too often.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadJob {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// How often it was attempted.
    pub attempts: i16,
    /// Its last error.
    pub last_error: Option<String>,
    /// When it was queued.
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
    /// Counts jobs by kind and state, for all kinds that have jobs or recur.
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
        .bind(DELIVERY_KIND)
        .fetch_all(&self.pool)
        .await?;
        Ok(kinds)
    }

    /// All leases that were ever acquired.
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

    /// Makes a job due now, with all its attempts. Returns false if it does not exist or is
    /// running.
    pub async fn retry_job(&self, actor: &Actor, id: i64) -> Result<bool, StoreError> {
        let retry = "SELECT FROM tasks.reschedule_jobs(ARRAY[$1::bigint], now(), NULL, 0)";
        self.change_job(actor, "job.retried", retry, id).await
    }

    /// Removes a job from the queue. Returns false if it does not exist or is running.
    pub async fn drop_job(&self, actor: &Actor, id: i64) -> Result<bool, StoreError> {
        let drop = "SELECT FROM tasks.complete_jobs(ARRAY[$1::bigint])";
        self.change_job(actor, "job.dropped", drop, id).await
    }

    /// Changes a job, and records who did it. Returns false if the statement finds no job.
    async fn change_job(
        &self,
        actor: &Actor,
        action: &str,
        statement: &'static str,
        id: i64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let kind: Option<String> =
            sqlx::query_scalar("SELECT task_identifier FROM tasks.jobs WHERE id = $1")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
        let done = sqlx::query(statement)
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
        if done.is_none() {
            return Ok(false);
        }
        let (target, details) = (id.to_string(), json!({"kind": kind}));
        audit::record(&mut transaction, actor, action, &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Records how a run of a recurring job ended.
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

/// Records when recurring jobs are queued again.
pub(super) async fn set_next_run(
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
