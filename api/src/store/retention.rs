//! How old data goes: day by day, runs first, then their partition of events as a whole.
//!
//! A day is due once all its runs are older than the retention, and waits as long as one of them has
//! a living agent. Its runs are deleted in batches (so that no lock is held for long), and what hangs
//! on them with them; then the partition is detached concurrently, which stops nobody who reads or
//! writes others, and dropped. Each step can be repeated: one that was broken off is taken up again.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::{Store, StoreError};

/// Runs deleted in one statement.
const BATCH: i64 = 1000;

/// A day of events that is too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// Its table.
    partition: String,
    /// It is a partition of `events`, as opposed to having been detached.
    attached: bool,
    /// It was being detached when that was broken off.
    pending: bool,
}

/// What went with a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The day, with this many runs.
    Runs(u64),
    /// Nothing: this run of it still has a living agent.
    Lives(Uuid),
}

impl Store {
    /// Days whose last moment is before `horizon`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn days_before(&self, horizon: DateTime<Utc>) -> Result<Vec<Due>, StoreError> {
        let rows: Vec<(String, NaiveDate, bool, bool)> = sqlx::query_as(
            "SELECT c.relname::text, day, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
               FROM pg_class c
               LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'events'::regclass
              CROSS JOIN LATERAL to_date(right(c.relname, 8), 'YYYYMMDD') AS day
              WHERE c.relkind = 'r'
                AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
                AND c.relname ~ '^events_[0-9]{8}$' AND day < ($1 AT TIME ZONE 'UTC')::date
              ORDER BY day",
        )
        .bind(horizon)
        .fetch_all(&self.pool)
        .await?;
        let due = |(partition, day, attached, pending)| Due {
            day,
            partition,
            attached,
            pending,
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// Removes a day: its runs, what hangs on them, and its events.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then stays so, and the next call goes on.
    pub async fn remove_day(&self, due: &Due) -> Result<Removed, StoreError> {
        let lives: Option<Uuid> = sqlx::query_scalar(
            "SELECT run_id FROM agents WHERE health IN ('alive', 'stale')
                AND run_id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC') LIMIT 1",
        )
        .bind(due.day)
        .fetch_optional(&self.pool)
        .await?;
        if let Some(run) = lives {
            return Ok(Removed::Lives(run));
        }
        let mut runs = 0;
        loop {
            let gone = sqlx::query(
                "DELETE FROM runs WHERE id IN (SELECT id FROM runs
                     WHERE id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
                     ORDER BY id LIMIT $2 FOR UPDATE)",
            )
            .bind(due.day)
            .bind(BATCH)
            .execute(&self.pool)
            .await?;
            runs += gone.rows_affected();
            if gone.rows_affected() == 0 {
                break;
            }
        }
        sqlx::query(
            "DELETE FROM dead_letters
              WHERE run_id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')",
        )
        .bind(due.day)
        .execute(&self.pool)
        .await?;
        self.drop_partition(due).await?;
        Ok(Removed::Runs(runs))
    }

    async fn drop_partition(&self, due: &Due) -> Result<(), StoreError> {
        // The name has been matched: it needs no quotes.
        let table = &due.partition;
        if due.attached {
            let how = if due.pending {
                "FINALIZE"
            } else {
                "CONCURRENTLY"
            };
            sqlx::query(&format!(
                "ALTER TABLE events DETACH PARTITION {table} {how}"
            ))
            .execute(&self.pool)
            .await?;
        }
        sqlx::query(&format!("DROP TABLE IF EXISTS {table}"))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Of these runs, those that exist.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn existing_runs(&self, runs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let ids = sqlx::query_scalar("SELECT id FROM runs WHERE id = ANY($1)")
            .bind(runs)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }
}
