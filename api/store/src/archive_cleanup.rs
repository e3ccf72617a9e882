//! Deletes rows that the archive holds: a whole day at once if all of it is archived, else run by
//! run.
//!
//! If a day is archived as a whole, its partition is emptied under a lock, by the transaction that
//! checks once more whether the day still is. The partition itself stays until retention removes
//! the day, because a run of that day may go on. All other rows are deleted in statements of at
//! most [`BATCH_ROWS`]. Readers do not get these rows any more ([`super::events`]).

use chrono::NaiveDate;
use uuid::Uuid;

use super::archives::day_of;
use super::error::StoreError;
use super::store::{Store, signed};

/// Rows deleted by one statement, which takes some tens of milliseconds.
const BATCH_ROWS: i64 = 10_000;

/// What a call deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The whole day was archived, and its partition is empty now.
    Day,
    /// This many rows, run by run.
    Rows(u64),
}

/// True if every event of the runs of a day is archived. Only past days count: a day gets new runs
/// until it is over, and for some time more by a clock that lags.
const DAY_IS_ARCHIVED: &str = "SELECT $1::date < (now() AT TIME ZONE 'UTC')::date - 1
    AND to_regclass('events_' || to_char($1::date, 'YYYYMMDD')) IS NOT NULL
    AND NOT EXISTS (SELECT FROM runs
         WHERE id >= uuid_v7_floor($1::date::timestamp AT TIME ZONE 'UTC')
           AND id < uuid_v7_floor(($1::date + 1)::timestamp AT TIME ZONE 'UTC')
           AND (epoch, seq) > (archived_epoch, archived_seq))";

impl Store {
    /// Days with archived runs whose rows still exist.
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

    /// Deletes the rows of the runs of a day that the archive holds: all at once by emptying the
    /// partition, if the archive holds all of it, else run by run, [`BATCH_ROWS`] in one statement.
    /// If it fails, earlier statements stay committed and the next call continues.
    ///
    /// The partition itself stays until retention removes the day, because a run that goes on needs
    /// it.
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

    /// Returns false if the day is not archived as a whole any more.
    async fn empty_partition(&self, day: NaiveDate) -> Result<bool, StoreError> {
        let partition = day.format("events_%Y%m%d");
        let mut transaction = self.pool.begin().await?;
        // Readers wait for this lock, so the wait for it is short. A transaction that stores rows
        // of these runs either commits before the lock is granted, and the check below sees its
        // rows, or it waits for the lock and stores them afterwards.
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
            let deleted = sqlx::query(
                "DELETE FROM events WHERE run_id = $1 AND (epoch, seq) <= ($2, $3) AND (epoch, seq) IN (
                     SELECT epoch, seq FROM events WHERE run_id = $1 AND (epoch, seq) <= ($2, $3)
                      ORDER BY epoch, seq LIMIT $4)",
            )
            .bind(run)
            .bind(signed(upto.epoch))
            .bind(signed(upto.seq))
            .bind(BATCH_ROWS)
            .execute(&self.pool)
            .await?;
            if deleted.rows_affected() == 0 {
                break;
            }
            rows += deleted.rows_affected();
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
