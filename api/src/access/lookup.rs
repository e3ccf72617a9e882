//! Sessions, tokens and permissions: from their copies in Redis, else from Postgres, which leaves a copy.
//!
//! | what | copy | life |
//! |---|---|---|
//! | token | `auth:token:<sha256>` | [`TOKEN_LIFE`], or until it ends |
//! | permissions | `auth:perm:<user>` | [`PERMISSIONS_LIFE`] |
//! | session | `session:<sha256>` | until it ends; see [`super::session`] |
//!
//! What does not exist leaves a copy as well, for [`NOTHING_LIFE`]: an agent that keeps asking with a token that has ended
//! costs Postgres next to nothing. [`runcast_common::mirror`] says why no copy is older than a change. Lives are measured by
//! Redis and Postgres, so that a gateway whose clock is wrong lets nobody stay longer.

use std::future::Future;
use std::time::Duration;

use runcast_common::mirror::{Mirror, Seen};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;
use uuid::Uuid;

use super::Access;
use super::meter::{Cache, Meter, Outcome};
use crate::store::StoreError;
use crate::store::roles::Permissions;
use crate::store::tokens::TokenRow;

/// How long the copy of a token lives.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// How long the copy of what a user may do lives.
pub const PERMISSIONS_LIFE: Duration = Duration::from_secs(300);

/// How long it is known that there is no such thing.
pub const NOTHING_LIFE: Duration = Duration::from_secs(10);

/// The copy of what does not exist.
const NOTHING: &str = "-";

/// What was found, and the copy of it, if there is one.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: Option<T>,
    pub(super) copy: Option<String>,
}

impl<T> Found<T> {
    const fn nothing() -> Self {
        Self {
            value: None,
            copy: None,
        }
    }
}

/// Looks for a copy, else reads, and leaves a copy with the life that comes along.
pub(super) async fn through<T: Serialize + DeserializeOwned>(
    (mirror, meter): (&Mirror, &Meter),
    cache: Cache,
    key: &str,
    read: impl Future<Output = Result<Option<(T, Duration)>, StoreError>>,
) -> Result<Found<T>, StoreError> {
    let seen = mirror.look(key).await;
    let lease = match seen {
        Seen::Copy(copy) if copy == NOTHING => {
            meter.looked(cache, Outcome::Hit);
            return Ok(Found::nothing());
        }
        Seen::Copy(copy) => match serde_json::from_str(&copy) {
            Ok(value) => {
                meter.looked(cache, Outcome::Hit);
                return Ok(Found {
                    value: Some(value),
                    copy: Some(copy),
                });
            }
            // Of another version: it stays until its life is over.
            Err(_unknown) => None,
        },
        Seen::Absent(lease) => Some(lease),
        Seen::Leased => None,
        Seen::Unreachable => {
            meter.looked(cache, Outcome::Unreachable);
            let value = read.await?.map(|(value, _)| value);
            return Ok(Found { value, copy: None });
        }
    };
    meter.looked(cache, Outcome::Miss);
    let read = read.await?;
    let Some(lease) = lease else {
        let value = read.map(|(value, _)| value);
        return Ok(Found { value, copy: None });
    };
    let Some((value, life)) = read else {
        mirror.fill(key, &lease, NOTHING, NOTHING_LIFE).await;
        return Ok(Found::nothing());
    };
    let copy = match serde_json::to_string(&value) {
        Ok(copy) => mirror.fill(key, &lease, &copy, life).await.then_some(copy),
        Err(failed) => {
            error!(error = %failed, key, "no copy can be made");
            None
        }
    };
    let value = Some(value);
    Ok(Found { value, copy })
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
                let life = left(row.left_ms, TOKEN_LIFE);
                (row, life)
            }))
        };
        let key = self.keys().token(&hash);
        let found = through((self.mirror(), self.meter()), Cache::Token, &key, read);
        Ok(found.await?.value)
    }

    /// What a user may do; none if there is no such user.
    ///
    /// # Errors
    /// [`StoreError`] if there is no copy and the database could not be asked.
    pub async fn permissions(&self, user: Uuid) -> Result<Option<Permissions>, StoreError> {
        let read = async {
            let permissions = self.store().permissions(user).await?;
            Ok(permissions.map(|permissions| (permissions, PERMISSIONS_LIFE)))
        };
        let key = self.keys().permissions(user);
        let found = through(
            (self.mirror(), self.meter()),
            Cache::Permissions,
            &key,
            read,
        );
        Ok(found.await?.value)
    }
}
