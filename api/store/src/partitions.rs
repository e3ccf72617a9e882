//! The daily partitions of `events`: made ahead, so that no run is ever created without a place for
//! its events.

use super::store::{Store, StoreError};

/// Days made ahead of today: a week in which the worker may be down before runs are refused.
pub const DAYS_AHEAD: i32 = 7;

impl Store {
    /// Makes the partitions from yesterday (a gateway's clock may lag) to [`DAYS_AHEAD`] days from
    /// now, and says how many were missing.
    pub async fn make_partitions(&self) -> Result<i64, StoreError> {
        let made = sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE make_events_partition(day::date))
               FROM generate_series((now() AT TIME ZONE 'UTC')::date - 1,
                                    (now() AT TIME ZONE 'UTC')::date + $1, interval '1 day') AS day",
        )
        .bind(DAYS_AHEAD)
        .fetch_one(&self.pool)
        .await?;
        Ok(made)
    }

    /// True if events of a run that is created now, and of one that is created tomorrow, have a place.
    pub async fn has_partitions(&self) -> Result<bool, StoreError> {
        let there = sqlx::query_scalar(
            "SELECT bool_and(to_regclass('events_' || to_char(day, 'YYYYMMDD')) IS NOT NULL)
               FROM generate_series((now() AT TIME ZONE 'UTC')::date,
                                    (now() AT TIME ZONE 'UTC')::date + 1, interval '1 day') AS day",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(there)
    }
}
