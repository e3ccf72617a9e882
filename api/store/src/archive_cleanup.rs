//! How rows go that the archive holds: a day at once where it holds all of it, else run by run.
//!
//! The partition of a day that is archived as a whole is emptied under a lock, in one transaction with the
//! question whether it still is; it stays, since a run of that day may go on, until retention takes the day.
//! Everywhere else rows go in bounded statements. Readers are not given these rows any more ([`super::events`]).

use chrono::NaiveDate;
use uuid::Uuid;

use super::archives::day_of;
use super::store::{Store, StoreError, signed};

/// Rows dropped in one statement: some tens of milliseconds.
const BATCH: i64 = 10_000;

/// How rows went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The whole day was archived, and its partition is empty now.
    Day,
    /// So many rows, one run after the other.
    Rows(u64),
}

/// True if every event of a day's runs is archived. Only the past counts: a day gets runs until it is over, and
/// by a clock that lags for some time more.
const DAY_IS_ARCHIVED: &str = "SELECT $1::date < (now() AT TIME ZONE 'UTC')::date - 1
    AND to_regclass('events_' || to_char($1::date, 'YYYYMMDD')) IS NOT NULL
    AND NOT EXISTS (SELECT FROM runs
         WHERE id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
           AND id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
           AND (epoch, seq) > (archived_epoch, archived_seq))";

impl Store {
    /// Days with archived runs whose rows are still there.
    pub async fn days_with_archived_rows(&self) -> Result<Vec<NaiveDate>, StoreError> {
        let runs: Vec<Uuid> = sqlx::query_scalar(
            "SELECT DISTINCT run_id FROM archives WHERE state = 'kept' AND rows_gone_at IS NULL",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut days: Vec<NaiveDate> = runs.into_iter().map(day_of).collect();
        days.sort_unstable();
        days.dedup();
        Ok(days)
    }

    /// Drops the rows of a day's runs that the archive holds: at once, by emptying the partition, where it holds
    /// all that is in it; else run by run, [`BATCH`] rows in one statement.
    ///
    /// The partition itself stays until retention takes the day: a run that goes on after all needs it.
    ///
    /// # Errors
    /// [`StoreError`]; what was dropped until then stays so, and the next call goes on.
    pub async fn drop_archived_rows(&self, day: NaiveDate) -> Result<Dropped, StoreError> {
        let whole: bool = sqlx::query_scalar(DAY_IS_ARCHIVED)
            .bind(day)
            .fetch_one(&self.pool)
            .await?;
        if whole && self.empty_partition(day).await? {
            return Ok(Dropped::Day);
        }
        let runs: Vec<Uuid> = sqlx::query_scalar(
            "SELECT DISTINCT run_id FROM archives WHERE state = 'kept' AND rows_gone_at IS NULL
                AND run_id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                AND run_id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')",
        )
        .bind(day)
        .fetch_all(&self.pool)
        .await?;
        let mut rows = 0;
        for run in runs {
            rows += self.drop_rows_of(run).await?;
        }
        Ok(Dropped::Rows(rows))
    }

    /// False if the day is not wholly archived after all.
    async fn empty_partition(&self, day: NaiveDate) -> Result<bool, StoreError> {
        let partition = day.format("events_%Y%m%d");
        let mut transaction = self.pool.begin().await?;
        // Readers wait behind this lock: not for long. Whoever stores rows of these runs has them in before it
        // is given, and is then seen by the question below, or waits behind it and stores them afterwards.
        sqlx::query("SET LOCAL lock_timeout = '2s'")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(&format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE"))
            .execute(&mut *transaction)
            .await?;
        let whole: bool = sqlx::query_scalar(DAY_IS_ARCHIVED)
            .bind(day)
            .fetch_one(&mut *transaction)
            .await?;
        if !whole {
            return Ok(false);
        }
        sqlx::query(&format!("TRUNCATE {partition}"))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "UPDATE archives SET rows_gone_at = clock_timestamp() WHERE state = 'kept' AND rows_gone_at IS NULL
                AND run_id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
                AND run_id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')",
        )
        .bind(day)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn drop_rows_of(&self, run: Uuid) -> Result<u64, StoreError> {
        let upto = self.archived_upto(run).await?;
        let mut rows = 0;
        loop {
            let gone = sqlx::query(
                "DELETE FROM events WHERE run_id = $1 AND (epoch, seq) <= ($2, $3) AND (epoch, seq) IN (
                     SELECT epoch, seq FROM events WHERE run_id = $1 AND (epoch, seq) <= ($2, $3)
                      ORDER BY epoch, seq LIMIT $4)",
            )
            .bind(run)
            .bind(signed(upto.epoch))
            .bind(signed(upto.seq))
            .bind(BATCH)
            .execute(&self.pool)
            .await?;
            if gone.rows_affected() == 0 {
                break;
            }
            rows += gone.rows_affected();
        }
        sqlx::query(
            "UPDATE archives SET rows_gone_at = clock_timestamp()
              WHERE run_id = $1 AND state = 'kept' AND rows_gone_at IS NULL AND (epoch, seq) <= ($2, $3)",
        )
        .bind(run)
        .bind(signed(upto.epoch))
        .bind(signed(upto.seq))
        .execute(&self.pool)
        .await?;
        Ok(rows)
    }
}
