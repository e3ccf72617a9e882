//! Sessions, tokens and permissions: from their copies in Redis, else from Postgres, which leaves a copy.
//!
//! | what | copy | read again after | gone after |
//! |---|---|---|---|
//! | token | `auth:token:<sha256>` | [`TOKEN_FRESH`] | [`MOST_LIFE`], or when it ends |
//! | permissions | `auth:perm:<user>` | [`PERMISSIONS_FRESH`] | [`MOST_LIFE`] |
//! | session | `session:<sha256>` | see [`super::session::lifetime`] | [`MOST_LIFE`], or when it ends |
//!
//! A copy that should be read again counts on while Postgres is away: as long as nobody can change what Postgres holds,
//! it is not wrong. What does not exist leaves a copy as well, for [`NOTHING_LIFE`]: an agent that keeps asking with a
//! token that has ended costs Postgres next to nothing. [`runcast_common::mirror`] says why no copy is older than a change.
//! Lives are measured by Redis and Postgres, so that a gateway whose clock is wrong lets nobody stay longer.

use std::future::Future;
use std::time::Duration;

use chrono::Utc;
use runcast_common::cache::{CacheEntry, LeaseCache};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{debug, error};
use uuid::Uuid;

use super::access::Access;
use super::metrics::{Cache, Metrics, Outcome};
use runcast_store::StoreError;
use runcast_store::roles::Permissions;
use runcast_store::tokens::TokenRow;

/// How long the copy of a token is taken as it is.
pub const TOKEN_FRESH: Duration = Duration::from_secs(3600);

/// How long the copy of what a user may do is taken as it is.
pub const PERMISSIONS_FRESH: Duration = Duration::from_secs(300);

/// How long a copy lives at most.
pub const MOST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long it is known that there is no such thing.
pub const NOTHING_LIFE: Duration = Duration::from_secs(10);

/// Longest wait for Postgres where there is a copy that will do.
const RENEW_DEADLINE: Duration = Duration::from_secs(1);

/// How long Postgres is not asked again about a copy after it did not answer.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// The copy of what does not exist.
const NOTHING: &str = "-";

/// What is looked for, and how long its copy is taken as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheLookup<'a> {
    pub(super) cache: Cache,
    pub(super) key: &'a str,
    pub(super) fresh: Duration,
}

/// What was found, and the copy of it, if there is one.
#[derive(Debug)]
pub(super) struct Cached<T> {
    pub(super) value: Option<T>,
    pub(super) copy: Option<String>,
}

impl<T> Cached<T> {
    const fn nothing() -> Self {
        Self {
            value: None,
            copy: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Copied<T> {
    /// Until when it is taken as it is, in seconds since 1970: a clock that is wrong has it read too often, or too rarely.
    fresh_until: i64,
    value: T,
}

/// A copy that is taken as it is for so long.
pub(super) fn copy_of(value: &impl Serialize, fresh: Duration) -> Option<String> {
    let fresh = i64::try_from(fresh.as_secs()).unwrap_or(i64::MAX);
    let copied = Copied {
        fresh_until: Utc::now().timestamp().saturating_add(fresh),
        value,
    };
    serde_json::to_string(&copied)
        .inspect_err(|failed| error!(error = %failed, "no copy can be made"))
        .ok()
}

/// What was read, and how long it may be remembered.
type Read<T> = Result<Option<(T, Duration)>, StoreError>;

/// Looks for a copy, else reads, and leaves a copy with the life that comes along.
pub(super) async fn through<T: Serialize + DeserializeOwned>(
    (mirror, meter): (&LeaseCache, &Metrics),
    wanted: CacheLookup<'_>,
    read: impl Future<Output = Read<T>>,
) -> Result<Cached<T>, StoreError> {
    let CacheLookup { cache, key, fresh } = wanted;
    let lease = match mirror.look(key).await {
        CacheEntry::Copy(copy) if copy == NOTHING => {
            meter.looked(cache, Outcome::Hit);
            return Ok(Cached::nothing());
        }
        CacheEntry::Copy(copy) => match serde_json::from_str::<Copied<T>>(&copy) {
            Ok(copied) if Utc::now().timestamp() < copied.fresh_until => {
                meter.looked(cache, Outcome::Hit);
                return Ok(Cached {
                    value: Some(copied.value),
                    copy: Some(copy),
                });
            }
            Ok(old) => return renew((mirror, meter), wanted, (copy, old.value), read).await,
            // Of another version: it stays until its life is over.
            Err(_unknown) => None,
        },
        CacheEntry::Absent(lease) => Some(lease),
        CacheEntry::Leased => None,
        CacheEntry::Unreachable => {
            meter.looked(cache, Outcome::Unreachable);
            let value = read.await?.map(|(value, _)| value);
            return Ok(Cached { value, copy: None });
        }
    };
    meter.looked(cache, Outcome::Miss);
    let read = read.await?;
    let Some(lease) = lease else {
        let value = read.map(|(value, _)| value);
        return Ok(Cached { value, copy: None });
    };
    let Some((value, life)) = read else {
        mirror.fill(key, &lease, NOTHING, NOTHING_LIFE).await;
        return Ok(Cached::nothing());
    };
    let copy = match copy_of(&value, fresh) {
        Some(copy) => mirror.fill(key, &lease, &copy, life).await.then_some(copy),
        None => None,
    };
    let value = Some(value);
    Ok(Cached { value, copy })
}

/// Reads again what there is an old copy of; without Postgres the copy will do.
async fn renew<T: Serialize>(
    (mirror, meter): (&LeaseCache, &Metrics),
    CacheLookup { cache, key, fresh }: CacheLookup<'_>,
    (copy, old): (String, T),
    read: impl Future<Output = Read<T>>,
) -> Result<Cached<T>, StoreError> {
    let (value, fresh, life) = match timeout(RENEW_DEADLINE, read).await {
        Ok(Ok(Some((value, life)))) => {
            meter.looked(cache, Outcome::Miss);
            (value, fresh, Some(life))
        }
        Ok(Ok(None)) => {
            meter.looked(cache, Outcome::Miss);
            if let Err(failed) = mirror.delete(&[key.to_owned()]).await {
                debug!(error = %failed, "a copy outlives what it is of for now");
            }
            return Ok(Cached::nothing());
        }
        Ok(Err(failure)) if !failure.is_outage() => return Err(failure),
        Ok(Err(_)) | Err(_) => {
            meter.looked(cache, Outcome::Stale);
            (old, RENEW_PAUSE, None)
        }
    };
    let copy = match copy_of(&value, fresh) {
        Some(new) => mirror.swap(key, &copy, &new, life).await.then_some(new),
        None => None,
    };
    let value = Some(value);
    Ok(Cached { value, copy })
}

/// What is left of a life, by the clock of Postgres, and at most this.
pub(super) fn left(milliseconds: Option<i64>, most: Duration) -> Duration {
    milliseconds.map_or(most, |left| {
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(most)
    })
}

impl Access {
    /// The token with this hash, if it is neither expired nor revoked.
    ///
    /// # Errors
    /// [`StoreError`] if there is no copy and the database could not be asked.
    pub async fn token(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let read = async {
            let row = self.store().token(hash).await?;
            Ok(row.map(|row| {
                let life = left(row.left_ms, MOST_LIFE);
                (row, life)
            }))
        };
        let key = self.keys().token(&hash);
        let wanted = CacheLookup {
            cache: Cache::Token,
            key: &key,
            fresh: TOKEN_FRESH,
        };
        let found = through((self.mirror(), self.meter()), wanted, read);
        Ok(found.await?.value)
    }

    /// What a user may do; none if there is no such user.
    ///
    /// # Errors
    /// [`StoreError`] if there is no copy and the database could not be asked.
    pub async fn permissions(&self, user: Uuid) -> Result<Option<Permissions>, StoreError> {
        let read = async {
            let permissions = self.store().permissions(user).await?;
            Ok(permissions.map(|permissions| (permissions, MOST_LIFE)))
        };
        let key = self.keys().permissions(user);
        let wanted = CacheLookup {
            cache: Cache::Permissions,
            key: &key,
            fresh: PERMISSIONS_FRESH,
        };
        let found = through((self.mirror(), self.meter()), wanted, read);
        Ok(found.await?.value)
    }
}
