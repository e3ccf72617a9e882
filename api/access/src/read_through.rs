//! [`ReadThrough`]: reads what Postgres owns from its copy in Redis, or else from Postgres, and
//! stores a copy.
//!
//! No copy is older than a change: a reader that stores a copy holds a lease, which every change
//! deletes ([`runcast_common::cache`]), and [`crate::invalidation`] deletes the copies of what has
//! changed before a revocation is answered. That needs neither synchronized clocks nor tombstones.
//!
//! A copy that is no longer fresh is read again, but is still used while Postgres is away: as long
//! as nothing can change what Postgres holds, it is not wrong. The absence of a row is cached as
//! well, for [`ABSENT_LIFE`], so that an agent that retries with an expired token costs Postgres
//! next to nothing. Redis and Postgres measure lifetimes, so a gateway whose clock is wrong does
//! not extend one.

use std::future::Future;
use std::time::Duration;

use chrono::Utc;
use runcast_common::cache::{CacheEntry, LeaseCache};
use runcast_store::StoreError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{debug, error};

use crate::metrics::{CachedKind, LookupOutcome, Metrics};

/// Longest life of a copy.
pub(crate) const MAX_COPY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long the absence of a row is cached.
const ABSENT_LIFE: Duration = Duration::from_secs(10);

/// Longest wait for Postgres to renew a copy that can still be used.
const RENEW_DEADLINE: Duration = Duration::from_secs(1);

/// How long a copy is used as fresh after Postgres did not answer.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// The copy of a row that does not exist.
const ABSENT_MARK: &str = "-";

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLookup<'a> {
    pub(crate) kind: CachedKind,
    pub(crate) key: &'a str,
}

/// How long the copy of a value is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyLife {
    /// How long it is used without reading Postgres again.
    pub(crate) fresh_for: Duration,
    /// When it expires.
    pub(crate) expires_after: Duration,
}

/// The value, and its copy as it is in Redis, if there is one.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    pub(crate) value: Option<T>,
    pub(crate) copy: Option<String>,
}

impl<T> Cached<T> {
    const fn absent() -> Self {
        Self {
            value: None,
            copy: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredCopy<T> {
    /// Seconds since 1970. A clock that is wrong only renews the copy too often, or too rarely.
    fresh_until: i64,
    value: T,
}

/// The JSON of a copy that is fresh for this long.
pub(crate) fn copy_of(value: &impl Serialize, fresh_for: Duration) -> Option<String> {
    let fresh_for = i64::try_from(fresh_for.as_secs()).unwrap_or(i64::MAX);
    let copy = StoredCopy {
        fresh_until: Utc::now().timestamp().saturating_add(fresh_for),
        value,
    };
    serde_json::to_string(&copy)
        .inspect_err(|failed| error!(error = %failed, "cannot encode the copy of a credential"))
        .ok()
}

/// A row from Postgres, and the life of its copy.
type Read<T> = Result<Option<(T, CopyLife)>, StoreError>;

/// The cache in Redis. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct ReadThrough {
    cache: LeaseCache,
    metrics: Metrics,
}

impl ReadThrough {
    pub(crate) const fn new(cache: LeaseCache, metrics: Metrics) -> Self {
        Self { cache, metrics }
    }

    /// The cache itself, to replace or delete copies.
    pub(crate) const fn cache(&self) -> &LeaseCache {
        &self.cache
    }

    /// Returns the copy, or the result of `read`, of which it stores a copy.
    pub(crate) async fn get<T: Serialize + DeserializeOwned>(
        &self,
        lookup: CacheLookup<'_>,
        read: impl Future<Output = Read<T>>,
    ) -> Result<Cached<T>, StoreError> {
        let CacheLookup { kind, key } = lookup;
        // Look for a copy.
        let lease = match self.cache.get(key).await {
            CacheEntry::Copy(copy) if copy == ABSENT_MARK => {
                self.metrics.looked_up(kind, LookupOutcome::Hit);
                return Ok(Cached::absent());
            }
            CacheEntry::Copy(copy) => match serde_json::from_str::<StoredCopy<T>>(&copy) {
                Ok(stored) if Utc::now().timestamp() < stored.fresh_until => {
                    self.metrics.looked_up(kind, LookupOutcome::Hit);
                    return Ok(Cached {
                        value: Some(stored.value),
                        copy: Some(copy),
                    });
                }
                Ok(old) => return self.renew(lookup, copy, old.value, read).await,
                Err(_unknown) => return self.replace_unknown(lookup, copy, read).await,
            },
            CacheEntry::Absent(lease) => Some(lease),
            CacheEntry::Leased => None,
            CacheEntry::Unreachable => {
                self.metrics.looked_up(kind, LookupOutcome::Unreachable);
                let value = read.await?.map(|(value, _)| value);
                return Ok(Cached { value, copy: None });
            }
        };
        // Read Postgres.
        self.metrics.looked_up(kind, LookupOutcome::Miss);
        let read = read.await?;
        // Store a copy, if this reader holds the lease.
        let Some(lease) = lease else {
            let value = read.map(|(value, _)| value);
            return Ok(Cached { value, copy: None });
        };
        let Some((value, life)) = read else {
            self.cache.fill(key, &lease, ABSENT_MARK, ABSENT_LIFE).await;
            return Ok(Cached::absent());
        };
        let copy = match copy_of(&value, life.fresh_for) {
            Some(copy) => {
                let filled = self.cache.fill(key, &lease, &copy, life.expires_after);
                let is_stored = filled.await;
                is_stored.then_some(copy)
            }
            None => None,
        };
        let value = Some(value);
        Ok(Cached { value, copy })
    }

    /// Replaces a copy that is no longer fresh. While Postgres is away, the old value is used.
    async fn renew<T: Serialize>(
        &self,
        lookup: CacheLookup<'_>,
        copy: String,
        old: T,
        read: impl Future<Output = Read<T>>,
    ) -> Result<Cached<T>, StoreError> {
        match timeout(RENEW_DEADLINE, read).await {
            Ok(Ok(read)) => {
                self.metrics.looked_up(lookup.kind, LookupOutcome::Miss);
                Ok(self.replace(lookup.key, &copy, read).await)
            }
            Ok(Err(failure)) if !failure.is_outage() => Err(failure),
            Ok(Err(_)) | Err(_) => {
                self.metrics.looked_up(lookup.kind, LookupOutcome::Stale);
                Ok(self.swap(lookup.key, &copy, old, RENEW_PAUSE, None).await)
            }
        }
    }

    /// Replaces a copy that another version has written, and that this one cannot read.
    async fn replace_unknown<T: Serialize>(
        &self,
        lookup: CacheLookup<'_>,
        copy: String,
        read: impl Future<Output = Read<T>>,
    ) -> Result<Cached<T>, StoreError> {
        self.metrics.looked_up(lookup.kind, LookupOutcome::Miss);
        let read = read.await?;
        Ok(self.replace(lookup.key, &copy, read).await)
    }

    /// Replaces a copy with what was read, unless it has changed meanwhile.
    async fn replace<T: Serialize>(
        &self,
        key: &str,
        copy: &str,
        read: Option<(T, CopyLife)>,
    ) -> Cached<T> {
        let Some((value, life)) = read else {
            if let Err(failed) = self.cache.delete(&[key.to_owned()]).await {
                debug!(error = %failed, "cannot delete the copy of a deleted row yet");
            }
            return Cached::absent();
        };
        let expires_after = Some(life.expires_after);
        self.swap(key, copy, value, life.fresh_for, expires_after)
            .await
    }

    /// Replaces a copy, unless it has changed meanwhile.
    async fn swap<T: Serialize>(
        &self,
        key: &str,
        copy: &str,
        value: T,
        fresh_for: Duration,
        expires_after: Option<Duration>,
    ) -> Cached<T> {
        let copy = match copy_of(&value, fresh_for) {
            Some(new) => {
                let swapped = self.cache.compare_and_set(key, copy, &new, expires_after);
                swapped.await.then_some(new)
            }
            None => None,
        };
        let value = Some(value);
        Cached { value, copy }
    }
}

/// The rest of a life, measured by the clock of Postgres, and at most `max`.
pub(crate) fn remaining(milliseconds: Option<i64>, max: Duration) -> Duration {
    milliseconds.map_or(max, |left| {
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(max)
    })
}
