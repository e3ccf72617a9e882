//! How old runs go, day by day: as a whole with their partition of events where all of a day are due, else one
//! by one.
//!
//! A run goes first, by a transaction that also notes the objects that the archive holds of it and, unless the
//! partition goes too, the run itself in `runs_gone`: from then on nobody sees it, and whatever dies in between,
//! the next call finds what is left of it. Runs are deleted in batches, rows in bounded statements, so no lock
//! is held for long. A partition is detached concurrently, which stops nobody who reads or writes others, and
//! dropped; a step that was broken off is taken up again.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Runs deleted in one transaction.
const BATCH: i64 = 1000;

/// Rows deleted in one statement.
const ROWS: i64 = 10_000;

/// Up to when runs are too old; none: never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizons {
    /// For runs with a label of this name and value; the first that fits counts.
    pub rules: Vec<(String, String, Option<DateTime<Utc>>)>,
    /// For all others.
    pub otherwise: Option<DateTime<Utc>>,
}

impl Horizons {
    /// The latest of them: what is younger is not too old in any case.
    pub fn latest(&self) -> Option<DateTime<Utc>> {
        let rules = self.rules.iter().map(|(_, _, horizon)| *horizon);
        rules.chain([self.otherwise]).flatten().max()
    }

    fn labels(&self) -> Vec<Value> {
        let label = |(name, value, _): &(String, String, _)| json!({ name.as_str(): value });
        self.rules.iter().map(label).collect()
    }

    /// For ever is what only a run older than the UUIDs' own beginning would exceed.
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
    /// It is a partition of `events`, as opposed to having been detached.
    attached: bool,
    /// It was being detached when that was broken off.
    pending: bool,
}

/// What went of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Runs.
    pub runs: u64,
    /// The day itself went, with its partition.
    pub whole: bool,
    /// One that would have gone and has a living agent.
    pub lives: Option<Uuid>,
}

/// Runs `r` of a day, $1, that are too old by the labels $2, their horizons $3, and the one of all others, $4.
const TOO_OLD: &str = "r.id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
    AND r.id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
    AND r.id < uuid_v7_floor(coalesce((
            SELECT rule.horizon
              FROM unnest($2::jsonb[], $3::timestamptz[]) WITH ORDINALITY AS rule(label, horizon, place)
             WHERE r.labels @> rule.label ORDER BY rule.place LIMIT 1), $4))";

const LIVES: &str =
    "EXISTS (SELECT FROM agents a WHERE a.run_id = r.id AND a.health IN ('alive', 'stale'))";

impl Store {
    /// Days in which something may be too old, oldest first.
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

    /// Removes from a day what is too old: all of it with its partition if all of it is.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then stays so, and the next call goes on.
    pub async fn remove_from_day(
        &self,
        day: &Day,
        horizons: &Horizons,
    ) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        // A day gets runs until it is over, and by a clock that lags for some time more.
        let whole = format!(
            "SELECT $1::date < (now() AT TIME ZONE 'UTC')::date - 1 AND NOT EXISTS (
                 SELECT FROM runs r
                  WHERE r.id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                    AND r.id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
                    AND NOT ({TOO_OLD} AND NOT {LIVES}))"
        );
        let whole: bool = sqlx::query_scalar(&whole)
            .bind(day.day)
            .bind(horizons.labels())
            .bind(horizons.moments())
            .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
            .fetch_one(&self.pool)
            .await?;
        loop {
            let gone = self.remove_runs(day, horizons, !whole).await?;
            removed.runs += gone;
            if gone == 0 {
                break;
            }
        }
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
            removed.lives = self.lives_on(day, horizons).await?;
        }
        Ok(removed)
    }

    /// Removes a batch of runs; `one_by_one` if their partition stays.
    async fn remove_runs(
        &self,
        day: &Day,
        horizons: &Horizons,
        one_by_one: bool,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let due = format!(
            "SELECT r.id FROM runs r WHERE {TOO_OLD} AND NOT {LIVES} ORDER BY r.id LIMIT $5 FOR UPDATE"
        );
        let runs: Vec<Uuid> = sqlx::query_scalar(&due)
            .bind(day.day)
            .bind(horizons.labels())
            .bind(horizons.moments())
            .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
            .bind(BATCH)
            .fetch_all(&mut *transaction)
            .await?;
        if runs.is_empty() {
            return Ok(0);
        }
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

    async fn lives_on(&self, day: &Day, horizons: &Horizons) -> Result<Option<Uuid>, StoreError> {
        let run = sqlx::query_scalar(&format!(
            "SELECT r.id FROM runs r WHERE {TOO_OLD} AND {LIVES} LIMIT 1"
        ))
        .bind(day.day)
        .bind(horizons.labels())
        .bind(horizons.moments())
        .bind(horizons.otherwise.unwrap_or(DateTime::UNIX_EPOCH))
        .fetch_optional(&self.pool)
        .await?;
        Ok(run)
    }

    /// Removes the rows of runs that went while their partition stayed; says how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then stays so, and the next call goes on.
    pub async fn remove_rows_of_gone_runs(&self) -> Result<u64, StoreError> {
        let mut rows = 0;
        loop {
            let run: Option<Uuid> = sqlx::query_scalar("SELECT run_id FROM runs_gone LIMIT 1")
                .fetch_optional(&self.pool)
                .await?;
            let Some(run) = run else {
                return Ok(rows);
            };
            loop {
                let gone = sqlx::query(
                    "DELETE FROM events WHERE run_id = $1 AND (epoch, seq) IN (
                         SELECT epoch, seq FROM events WHERE run_id = $1 ORDER BY epoch, seq LIMIT $2)",
                )
                .bind(run)
                .bind(ROWS)
                .execute(&self.pool)
                .await?;
                if gone.rows_affected() == 0 {
                    break;
                }
                rows += gone.rows_affected();
            }
            sqlx::query("DELETE FROM runs_gone WHERE run_id = $1")
                .bind(run)
                .execute(&self.pool)
                .await?;
        }
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
        // The name has been matched: it needs no quotes.
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

    /// Of these runs, those that exist.
    pub async fn existing_runs(&self, runs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let ids = sqlx::query_scalar("SELECT id FROM runs WHERE id = ANY($1)")
            .bind(runs)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }
}
