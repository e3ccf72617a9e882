//! [`Sessions`]: browser sessions, written to Postgres, copied to Redis and read from there first.
//!
//! A session ends after [`Lives::idle`] without a request, and [`MAX_SESSION_LIFE`] after its
//! sign-in at the latest. Requests move its end forward, in Postgres and in the copy, but only once
//! in [`TOUCH_INTERVAL`]: of several requests, the one that marks the copy as seen does it. While
//! Postgres is away, a session lasts until its copy expires. Postgres and Redis decide when a
//! session ends. How long ago it was seen depends on the clock of the gateway too, so each gateway
//! also remembers what it has touched itself: a wrong clock, in either direction, then does not
//! touch a session with every request. Postgres holds one session for each client of a user, by a
//! unique index, so Redis needs no key for that.
//!
//! [`super::store`] implements the store trait of `tower-sessions`, whose
//! [`tower_sessions::Session`] creates, cycles and ends sessions. Its middleware is not used, for
//! four reasons: it removes a cookie without `Secure`, which browsers ignore for names with
//! `__Host-`; it answers an empty 500 where Postgres is away, not a problem with 503; it drops
//! cookies that it cannot parse, those of the version before among them, and logs each at `warn`,
//! so that any client can fill the log; and every response to a stream would pass through it to
//! slide a cookie that the server ends anyway.

use std::time::{Duration, Instant};

use chrono::Utc;
use quick_cache::sync::Cache as LocalCache;
use runcast_common::protocol::keys::Keys;
use runcast_store::sessions::{Lives, SessionRow};
use runcast_store::{Store, StoreError};
use tokio::time::timeout;
use tracing::debug;

use crate::metrics::CachedKind;
use crate::read_through::{CacheLookup, Cached, CopyLife, ReadThrough, copy_of, remaining};

/// How long a session lives without a request, unless the operator sets another time.
pub const DEFAULT_SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Longest life of a session: NIST SP 800-63B wants users to sign in again after 30 days.
pub const MAX_SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A session that was seen within this time is not touched again.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for Postgres to move the end of a session that is valid anyway.
const TOUCH_DEADLINE: Duration = Duration::from_secs(1);

/// Sessions whose last touch is remembered.
const MAX_TOUCHED_SESSIONS: usize = 10_000;

/// When this process touched which session, by the hash of its id, on a monotonic clock.
#[derive(Debug)]
struct LastTouches(LocalCache<[u8; 32], Instant>);

impl Default for LastTouches {
    fn default() -> Self {
        Self(LocalCache::new(MAX_TOUCHED_SESSIONS))
    }
}

impl LastTouches {
    /// Whether this process has not touched a session within [`TOUCH_INTERVAL`]; it is marked as
    /// touched then.
    fn is_due(&self, hash: [u8; 32]) -> bool {
        let now = Instant::now();
        let last = self.0.get(&hash);
        let due = last.is_none_or(|last| now.duration_since(last) >= TOUCH_INTERVAL);
        if due {
            self.0.insert(hash, now);
        }
        due
    }
}

/// Reads sessions and moves their end forward.
#[derive(Debug)]
pub struct Sessions {
    pub(super) store: Store,
    keys: Keys,
    read_through: ReadThrough,
    last_touches: LastTouches,
    idle: Duration,
}

impl Sessions {
    /// Sessions that end after `idle` without a request.
    pub(crate) fn new(store: Store, keys: Keys, read_through: ReadThrough, idle: Duration) -> Self {
        Self {
            store,
            keys,
            read_through,
            last_touches: LastTouches::default(),
            idle,
        }
    }

    /// The session with this hash, unless it has ended. Its end moves forward.
    pub(crate) async fn get(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let Cached { value, copy } = self.read(hash).await?;
        let Some(row) = value else {
            return Ok(None);
        };
        // A time in the future is as wrong as one in the past.
        let unseen = (Utc::now() - row.last_seen_at).abs().to_std();
        let is_stale = unseen.is_ok_and(|unseen| unseen >= TOUCH_INTERVAL);
        if is_stale && self.last_touches.is_due(hash) {
            return Ok(self.touch(hash, row, copy).await);
        }
        Ok(Some(row))
    }

    /// The session with this hash, unless it has ended. Its end does not move.
    pub(crate) async fn peek(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        Ok(self.read(hash).await?.value)
    }

    async fn read(&self, hash: [u8; 32]) -> Result<Cached<SessionRow>, StoreError> {
        let read = async {
            let row = self.store.session(hash).await?;
            Ok(row.map(|row| {
                let life = CopyLife {
                    fresh_for: Duration::MAX,
                    expires_after: remaining(Some(row.left_ms), DEFAULT_SESSION_LIFE),
                };
                (row, life)
            }))
        };
        let key = self.keys.session(&hash);
        let lookup = CacheLookup {
            kind: CachedKind::Session,
            key: &key,
        };
        self.read_through.get(lookup, read).await
    }

    /// Moves the end of a session forward, unless another request does. Returns none if the session
    /// turns out to have ended.
    async fn touch(
        &self,
        hash: [u8; 32],
        row: SessionRow,
        copy: Option<String>,
    ) -> Option<SessionRow> {
        let key = self.keys.session(&hash);
        let cache = self.read_through.cache();
        // Mark the copy as seen: only the request that succeeds continues. Without a copy only
        // Postgres knows when the session was seen.
        let seen = SessionRow {
            last_seen_at: Utc::now(),
            ..row.clone()
        };
        let marked = copy.zip(copy_of(&seen, Duration::MAX));
        // The copy keeps the rest of its life: Postgres may be away.
        if let Some((copy, seen)) = &marked
            && !cache.compare_and_set(&key, copy, seen, None).await
        {
            return Some(row);
        }
        // Move the end in Postgres.
        let touching = self.store.touch_session(hash, self.lives());
        let touched = match timeout(TOUCH_DEADLINE, touching).await {
            Ok(Ok(touched)) => touched,
            Ok(Err(failed)) => {
                debug!(error = %failed, "cannot move the end of a session for now");
                return Some(row);
            }
            Err(_elapsed) => return Some(row),
        };
        // Give the copy the new end, or delete it.
        let Some(touched) = touched else {
            if let Err(failed) = cache.delete(&[key]).await {
                debug!(error = %failed, "cannot delete the copy of an ended session yet");
            }
            return None;
        };
        if let (Some((_, seen)), Some(new)) = (marked, copy_of(&touched, Duration::MAX)) {
            let life = remaining(Some(touched.left_ms), DEFAULT_SESSION_LIFE);
            cache.compare_and_set(&key, &seen, &new, Some(life)).await;
        }
        Some(touched)
    }

    /// Deletes the copy of a session. If Redis does not answer,
    /// [invalidation](crate::invalidation) deletes it later.
    pub(super) async fn delete_copy(&self, hash: [u8; 32]) {
        let key = self.keys.session(&hash);
        if let Err(failed) = self.read_through.cache().delete(&[key]).await {
            debug!(error = %failed, "the copy of a session is deleted later");
        }
    }

    /// The limits on the life of sessions.
    pub(super) const fn lives(&self) -> Lives {
        Lives {
            idle: self.idle,
            most: MAX_SESSION_LIFE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_touched_once_per_interval_independent_of_the_wall_clock() {
        let touches = LastTouches::default();
        assert!(touches.is_due([1; 32]) && touches.is_due([2; 32]));
        assert!(!touches.is_due([1; 32]));
        let long_ago = Instant::now().checked_sub(TOUCH_INTERVAL);
        touches
            .0
            .insert([1; 32], long_ago.expect("a time since the machine started"));
        assert!(touches.is_due([1; 32]) && !touches.is_due([1; 32]));
    }
}
