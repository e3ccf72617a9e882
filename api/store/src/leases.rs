//! Leases: only one worker at a time does work that two must not do at once.
//!
//! A lease is a row in Postgres, not a key in Redis, because its holder writes to Postgres too. The
//! transaction that does the work also checks the fencing number, under a lock that keeps the lease
//! from changing hands before the commit. A holder that was paused and resumes with an old number
//! changes nothing. All times are those of Postgres.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// A lease that was held when it was acquired. Only [`Lease::check`] says whether it still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    name: &'static str,
    holder: Uuid,
    /// The fencing number, larger than that of every previous holder.
    pub token: i64,
}

impl Lease {
    /// True if the lease is held. It then stays held until the transaction ends.
    pub(super) async fn check(&self, transaction: &mut PgConnection) -> Result<bool, StoreError> {
        let held: Option<bool> = sqlx::query_scalar(
            "SELECT true FROM leases WHERE name = $1 AND holder = $2 AND token = $3
                AND expires_at > clock_timestamp() FOR SHARE",
        )
        .bind(self.name)
        .bind(self.holder)
        .bind(self.token)
        .fetch_optional(transaction)
        .await?;
        Ok(held.is_some())
    }
}

impl Store {
    /// Acquires or renews a lease for this duration. Returns none if another worker holds it.
    pub async fn take_lease(
        &self,
        name: &'static str,
        holder: Uuid,
        duration: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let token = sqlx::query_scalar(
            "INSERT INTO leases AS l (name, holder, token, expires_at)
             VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at,
                    token = l.token + CASE WHEN l.holder = excluded.holder
                                            AND l.expires_at > clock_timestamp() THEN 0 ELSE 1 END
              WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp()
             RETURNING token",
        )
        .bind(name)
        .bind(holder)
        .bind(duration.as_secs_f64())
        .fetch_optional(&self.pool)
        .await?;
        Ok(token.map(|token| Lease {
            name,
            holder,
            token,
        }))
    }

    /// Releases a lease before it expires, if it is still held. If this fails, the lease expires by
    /// itself.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE leases SET expires_at = clock_timestamp()
              WHERE name = $1 AND holder = $2 AND token = $3",
        )
        .bind(lease.name)
        .bind(lease.holder)
        .bind(lease.token)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
