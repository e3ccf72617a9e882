//! Removes old runs, day by day: together with their partition of events if all runs of the day are
//! due, else one by one.
//!
//! The transaction that deletes a run also marks its archived objects for deletion and, unless its
//! partition is removed too, records the run in `runs_gone`. From then on no reader sees the run,
//! and if the process dies, the next call finds what is left of it. Runs are deleted in batches of
//! [`BATCH_RUNS`], rows in statements of at most [`BATCH_ROWS`], so no lock is held for long. A
//! partition is detached concurrently, which blocks no reader or writer of the others, and then
//! dropped. An interrupted step is resumed by the next call.
//!
//! A run on hold stays, and so does the partition of its day: the other runs of the day are removed
//! one by one, which costs a deleted row for each event instead of one dropped table. Moving the
//! held run elsewhere would keep that cheap, but every reader would have to look there as well.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// Runs deleted in one transaction.
const BATCH_RUNS: i64 = 1000;

/// Rows deleted in one statement.
pub(super) const BATCH_ROWS: i64 = 10_000;

/// The times before which runs are too old; none: runs never become too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizons {
    /// For runs with a label of this name and value. The first matching rule counts.
    pub rules: Vec<(String, String, Option<DateTime<Utc>>)>,
    /// For all other runs.
    pub otherwise: Option<DateTime<Utc>>,
}

impl Horizons {
    /// The latest of them. A younger run is not too old under any rule.
    pub fn latest(&self) -> Option<DateTime<Utc>> {
        let rules = self.rules.iter().map(|(_, _, horizon)| *horizon);
        rules.chain([self.otherwise]).flatten().max()
    }

    fn labels(&self) -> Vec<Value> {
        let label = |(name, value, _): &(String, String, _)| json!({ name.as_str(): value });
        self.rules.iter().map(label).collect()
    }

    /// A rule that keeps runs forever gets the Unix epoch: no UUIDv7 is older.
    fn moments(&self) -> Vec<DateTime<Utc>> {
        let moment = |(_, _, horizon): &(_, _, Option<_>)| horizon.unwrap_or(DateTime::UNIX_EPOCH);
        self.rules.iter().map(moment).collect()
    }
}

/// A day of events, some of which may be too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// Its table.
    partition: String,
    /// True if the table is still a partition of `events`, false if it was detached.
    attached: bool,
    /// True if detaching it was interrupted.
    pending: bool,
}

/// What was removed of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Runs.
    pub runs: u64,
    /// True if the partition of the day was removed too.
    pub whole: bool,
    /// A run that is old enough, but was kept because it has a live agent.
    pub lives: Option<Uuid>,
}

/// The condition for runs `r` of the day $1 that are too old and not on hold, by the labels $2 with
/// their horizons $3, and the horizon $4 of all others.
const IS_TOO_OLD: &str = "r.id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
    AND r.id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
    AND r.id < uuid_v7_floor(coalesce((
            SELECT rule.horizon
              FROM unnest($2::jsonb[], $3::timestamptz[]) WITH ORDINALITY AS rule(label, horizon, place)
             WHERE r.labels @> rule.label ORDER BY rule.place LIMIT 1), $4))
    AND r.held_at IS NULL";

/// The condition for runs `r` with a live agent, which are kept.
const HAS_LIVE_AGENT: &str =
    "EXISTS (SELECT FROM agents a WHERE a.run_id = r.id AND a.health IN ('alive', 'stale'))";

impl Store {
    /// Days that may hold runs that are too old, oldest first.
    pub async fn days_before(&self, horizons: &Horizons) -> Result<Vec<Day>, StoreError> {
        let rows: Vec<(String, NaiveDate, bool, bool)> = sqlx::query_as(
            "SELECT c.relname::text, day, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
               FROM pg_class c
               LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'events'::regclass
              CROSS JOIN LATERAL to_date(right(c.relname, 8), 'YYYYMMDD') AS day
              WHERE c.relkind = 'r'
                AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
                AND c.relname ~ '^events_[0-9]{8}$' AND day::timestamp < ($1 AT TIME ZONE 'UTC')
              ORDER BY day",
        )
        .bind(horizons.latest().unwrap_or(DateTime::UNIX_EPOCH))
        .fetch_all(&self.pool)
        .await?;
        let day = |(partition, day, attached, pending)| Day {
            day,
            partition,
            attached,
            pending,
        };
        Ok(rows.into_iter().map(day).collect())
    }

    /// Removes the runs of a day that are too old, together with the partition if all of them are.
    /// If it fails, earlier batches stay removed and the next call continues.
    pub async fn remove_from_day(
        &self,
        day: &Day,
        horizons: &Horizons,
    ) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        // A day gets new runs until it is over, and for some time more by a clock that lags.
        let whole = format!(
            "SELECT $1::date < (now() AT TIME ZONE 'UTC')::date - 1 AND NOT EXISTS (
                 SELECT FROM runs r
                  WHERE r.id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                    AND r.id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
                    AND NOT ({IS_TOO_OLD} AND NOT {HAS_LIVE_AGENT}))"
        );
        let whole: bool = sqlx::query_scalar(&whole)
            .bind(day.day)
            .bind(horizons.labels())
            .bind(horizons.moments())
            .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
            .fetch_one(&self.pool)
            .await?;
        // Runs go first: from then on no reader sees them.
        loop {
            let deleted = self.remove_runs(day, horizons, !whole).await?;
            removed.runs += deleted;
            if deleted == 0 {
                break;
            }
        }
        // The partition follows if no run of the day is left.
        let left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM runs
                 WHERE id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                   AND id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC'))",
        )
        .bind(day.day)
        .fetch_one(&self.pool)
        .await?;
        if whole && !left {
            self.remove_day(day).await?;
            removed.whole = true;
        } else {
            removed.lives = self.live_run(day, horizons).await?;
        }
        Ok(removed)
    }

    /// Removes a batch of runs. `one_by_one`: their partition stays.
    async fn remove_runs(
        &self,
        day: &Day,
        horizons: &Horizons,
        one_by_one: bool,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let due = format!(
            "SELECT r.id FROM runs r WHERE {IS_TOO_OLD} AND NOT {HAS_LIVE_AGENT} ORDER BY r.id LIMIT $5 FOR UPDATE"
        );
        let runs: Vec<Uuid> = sqlx::query_scalar(&due)
            .bind(day.day)
            .bind(horizons.labels())
            .bind(horizons.moments())
            .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
            .bind(BATCH_RUNS)
            .fetch_all(&mut *transaction)
            .await?;
        if runs.is_empty() {
            return Ok(0);
        }
        // Without the partition, a record must remain of which rows are left to delete.
        if one_by_one {
            sqlx::query("INSERT INTO runs_gone SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING")
                .bind(&runs)
                .execute(&mut *transaction)
                .await?;
        }
        for statement in [
            "UPDATE archives SET state = 'leaving' WHERE run_id = ANY($1) AND state <> 'leaving'",
            "DELETE FROM dead_letters WHERE run_id = ANY($1)",
            "DELETE FROM runs WHERE id = ANY($1)",
        ] {
            sqlx::query(statement)
                .bind(&runs)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(runs.len() as u64)
    }

    /// A run that is old enough, but has a live agent.
    async fn live_run(&self, day: &Day, horizons: &Horizons) -> Result<Option<Uuid>, StoreError> {
        let run = sqlx::query_scalar(&format!(
            "SELECT r.id FROM runs r WHERE {IS_TOO_OLD} AND {HAS_LIVE_AGENT} LIMIT 1"
        ))
        .bind(day.day)
        .bind(horizons.labels())
        .bind(horizons.moments())
        .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
        .fetch_optional(&self.pool)
        .await?;
        Ok(run)
    }

    /// Deletes the rows of removed runs whose partition stayed, and returns how many. If it fails,
    /// earlier statements stay committed and the next call continues.
    pub async fn remove_rows_of_gone_runs(&self) -> Result<u64, StoreError> {
        let mut rows = 0;
        loop {
            let run: Option<Uuid> = sqlx::query_scalar("SELECT run_id FROM runs_gone LIMIT 1")
                .fetch_optional(&self.pool)
                .await?;
            let Some(run) = run else {
                return Ok(rows);
            };
            rows += self.remove_rows_of(run).await?;
        }
    }

    /// Deletes the rows of a removed run, and returns how many. If it fails, earlier statements
    /// stay committed and the next call continues.
    pub async fn remove_rows_of(&self, run: Uuid) -> Result<u64, StoreError> {
        let mut rows = 0;
        loop {
            let deleted = sqlx::query(
                "DELETE FROM events WHERE run_id = $1 AND (epoch, seq) IN (
                     SELECT epoch, seq FROM events WHERE run_id = $1 ORDER BY epoch, seq LIMIT $2)",
            )
            .bind(run)
            .bind(BATCH_ROWS)
            .execute(&self.pool)
            .await?;
            if deleted.rows_affected() == 0 {
                break;
            }
            rows += deleted.rows_affected();
        }
        sqlx::query("DELETE FROM runs_gone WHERE run_id = $1")
            .bind(run)
            .execute(&self.pool)
            .await?;
        Ok(rows)
    }

    /// Removes what is left of a day without runs.
    async fn remove_day(&self, day: &Day) -> Result<(), StoreError> {
        for table in ["dead_letters", "runs_gone"] {
            sqlx::query(&format!(
                "DELETE FROM {table} WHERE run_id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                    AND run_id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')"
            ))
            .bind(day.day)
            .execute(&self.pool)
            .await?;
        }
        // The name matches the pattern of `days_before`: it needs no quotes.
        let table = &day.partition;
        if day.attached {
            let how = if day.pending {
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

    /// Those of these runs that exist.
    pub async fn existing_runs(&self, runs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let ids = sqlx::query_scalar("SELECT id FROM runs WHERE id = ANY($1)")
            .bind(runs)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }
}
