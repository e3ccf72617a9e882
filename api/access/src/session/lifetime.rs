//! Sessions of browsers: written to Postgres, copied to Redis, read from there first.
//!
//! A session ends when nothing was asked for [`Lives::idle`], and at the latest [`MOST_LIFE`] after its sign-in. Requests
//! move its end forward, in Postgres and in the copy, but only once in [`TOUCH_EVERY`]: of several requests the one
//! that marks the copy as seen does it. While Postgres is away a session lasts until its copy ends. When a session ends is
//! for Postgres and Redis to say; how long ago it was seen is told by the clock of the gateway too, so one whose clock is
//! wrong, in either direction, goes by what it has touched itself.
//!
//! [`store`] is the store trait of `tower-sessions`, whose [`tower_sessions::Session`] makes, cycles and ends them.
//! Its middleware is not used, for four reasons: it removes a cookie without `Secure`, which browsers ignore for names
//! with `__Host-`; it answers an empty 500 where Postgres is away, not a problem with 503; it drops cookies that it
//! cannot parse, those of the version before among them, and logs each at `warn`, so that anybody can fill the log;
//! and it would have every response to a stream go through it to slide a cookie that the server ends anyway.

use std::time::{Duration, Instant};

use chrono::Utc;
use quick_cache::sync::Cache as Remembered;
use tokio::time::timeout;
use tracing::debug;

use crate::access::Access;
use crate::metrics::Cache;
use crate::read_through::{CacheLookup, Cached, copy_of, left, through};
use runcast_store::StoreError;
use runcast_store::sessions::{Lives, SessionRow};

/// How long a session lives without a request if nothing is set.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long a session lives at most: NIST SP 800-63B wants people to sign in again after 30 days.
pub const MOST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A session that was seen so lately is not touched again.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Longest wait for Postgres to move the end of a session that is valid anyway.
const TOUCH_DEADLINE: Duration = Duration::from_secs(1);

/// Sessions whose last touch is remembered.
const MOST_TOUCHED: usize = 10_000;

/// When this process has touched which session, by hash, as a clock tells it that nobody sets.
#[derive(Debug)]
pub(crate) struct Touched(Remembered<[u8; 32], Instant>);

impl Default for Touched {
    fn default() -> Self {
        Self(Remembered::new(MOST_TOUCHED))
    }
}

impl Touched {
    /// True, and remembered, unless it was so within [`TOUCH_EVERY`].
    fn is_due(&self, hash: [u8; 32]) -> bool {
        let now = Instant::now();
        let last = self.0.get(&hash);
        let due = last.is_none_or(|last| now.duration_since(last) >= TOUCH_EVERY);
        if due {
            self.0.insert(hash, now);
        }
        due
    }
}

impl Access {
    /// The session with this hash, if it has not ended; its end is moved forward.
    ///
    /// # Errors
    /// [`StoreError`] if there is no copy and the database could not be asked.
    pub async fn session(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let Cached { value, copy } = self.found_session(hash).await?;
        let Some(row) = value else {
            return Ok(None);
        };
        // Seen in an hour to come is as wrong as an hour ago.
        let unseen = (Utc::now() - row.last_seen_at).abs().to_std();
        let is_stale = unseen.is_ok_and(|unseen| unseen >= TOUCH_EVERY);
        if is_stale && self.touched().is_due(hash) {
            return Ok(self.touch(hash, row, copy).await);
        }
        Ok(Some(row))
    }

    /// The session with this hash, if it has not ended; its end stays where it is.
    ///
    /// # Errors
    /// As [`Access::session`].
    pub async fn session_as_it_is(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        Ok(self.found_session(hash).await?.value)
    }

    async fn found_session(&self, hash: [u8; 32]) -> Result<Cached<SessionRow>, StoreError> {
        let read = async {
            let row = self.store().session(hash).await?;
            Ok(row.map(|row| {
                let life = left(Some(row.left_ms), LIFE);
                (row, life)
            }))
        };
        let key = self.keys().session(&hash);
        let wanted = CacheLookup {
            cache: Cache::Session,
            key: &key,
            fresh: Duration::MAX,
        };
        through((self.mirror(), self.meter()), wanted, read).await
    }

    /// Moves the end of a session forward, if nobody else does; none if it turns out to have ended.
    async fn touch(
        &self,
        hash: [u8; 32],
        row: SessionRow,
        copy: Option<String>,
    ) -> Option<SessionRow> {
        let key = self.keys().session(&hash);
        let seen = SessionRow {
            last_seen_at: Utc::now(),
            ..row.clone()
        };
        // Without a copy Postgres alone knows when it was seen.
        let marked = copy.zip(copy_of(&seen, Duration::MAX));
        // With what is left of its life: Postgres may be away.
        if let Some((copy, seen)) = &marked
            && !self.mirror().swap(&key, copy, seen, None).await
        {
            return Some(row);
        }
        let touching = self.store().touch_session(hash, self.lives());
        let touched = match timeout(TOUCH_DEADLINE, touching).await {
            Ok(Ok(touched)) => touched,
            Ok(Err(failed)) => {
                debug!(error = %failed, "a session lasts no longer for now");
                return Some(row);
            }
            Err(_elapsed) => return Some(row),
        };
        let Some(touched) = touched else {
            if let Err(failed) = self.mirror().delete(&[key]).await {
                debug!(error = %failed, "the copy of a session outlives it for now");
            }
            return None;
        };
        if let (Some((_, seen)), Some(new)) = (marked, copy_of(&touched, Duration::MAX)) {
            let life = left(Some(touched.left_ms), LIFE);
            self.mirror().swap(&key, &seen, &new, Some(life)).await;
        }
        Some(touched)
    }

    /// How long sessions live here.
    pub(super) fn lives(&self) -> Lives {
        Lives {
            idle: self.session_life(),
            most: MOST_LIFE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_touched_once_in_a_while_whatever_clocks_say() {
        let touched = Touched::default();
        assert!(touched.is_due([1; 32]) && touched.is_due([2; 32]));
        assert!(!touched.is_due([1; 32]));
        let long_ago = Instant::now().checked_sub(TOUCH_EVERY);
        touched
            .0
            .insert([1; 32], long_ago.expect("a time since the machine started"));
        assert!(touched.is_due([1; 32]) && !touched.is_due([1; 32]));
    }
}
