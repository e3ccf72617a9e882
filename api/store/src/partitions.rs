//! The daily partitions of `events`. The worker creates them in advance, so that every new run has
//! a partition for its events.

use super::error::StoreError;
use super::store::Store;

/// Days for which partitions are created in advance. The worker may be down for a week before runs
/// are rejected.
pub const DAYS_AHEAD: i32 = 7;

impl Store {
    /// Creates the partitions from yesterday (the clock of a gateway may lag) to [`DAYS_AHEAD`]
    /// days from now. Returns how many were missing.
    pub async fn make_partitions(&self) -> Result<i64, StoreError> {
        let created = sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE make_events_partition(day::date))
               FROM generate_series((now() AT TIME ZONE 'UTC')::date - 1,
                                    (now() AT TIME ZONE 'UTC')::date + $1, interval '1 day') AS day",
        )
        .bind(DAYS_AHEAD)
        .fetch_one(&self.pool)
        .await?;
        Ok(created)
    }

    /// True if the partitions of today and tomorrow exist, so that runs created now and tomorrow
    /// can store events.
    pub async fn has_partitions(&self) -> Result<bool, StoreError> {
        let exist = sqlx::query_scalar(
            "SELECT bool_and(to_regclass('events_' || to_char(day, 'YYYYMMDD')) IS NOT NULL)
               FROM generate_series((now() AT TIME ZONE 'UTC')::date,
                                    (now() AT TIME ZONE 'UTC')::date + 1, interval '1 day') AS day",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(exist)
    }
}
