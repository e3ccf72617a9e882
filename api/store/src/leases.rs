//! Leases: one worker at a time does what must not be done by two.
//!
//! A lease is a row in Postgres and not a key in Redis, because what its holder writes is in Postgres
//! too: the fencing number is then checked by the transaction that acts, under a lock that keeps the
//! lease from changing hands before the commit. A holder that was paused and wakes up with an old
//! number changes nothing. Time is Postgres' own.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::store::{Store, StoreError};

/// A lease that was held when it was taken; whether it still is, only [`Lease::check`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    name: &'static str,
    holder: Uuid,
    /// The fencing number: larger than that of every holder before.
    pub token: i64,
}

impl Lease {
    /// True if the lease is held; it then stays so until the transaction ends.
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
    /// Takes or renews a lease for so long; none if somebody else holds it.
    pub async fn take_lease(
        &self,
        name: &'static str,
        holder: Uuid,
        life: Duration,
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
        .bind(life.as_secs_f64())
        .fetch_optional(&self.pool)
        .await?;
        Ok(token.map(|token| Lease {
            name,
            holder,
            token,
        }))
    }

    /// Gives a lease back before its time, if it is still held.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it; the lease then ends by itself.
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
