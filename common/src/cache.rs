//! A cache in Redis of data that Postgres owns, which never serves data from before a change.
//!
//! A cached copy is one string key with a time to live. A reader that misses leaves a lease in the
//! same command (`SET NX GET`): a random token, valid for [`LEASE_TTL`]. The reader then queries
//! Postgres and replaces its lease with the copy, but only if the lease is still there
//! ([`LeaseCache::fill`], one script). A writer that has changed Postgres deletes the key, whether
//! it holds a copy or a lease.
//!
//! So a slow reader, which still holds data from before the change, finds its lease gone and writes
//! nothing. A reader that comes after the deletion queries Postgres after the change. This needs no
//! clock and no tombstone. The one limit is Redis itself: a failover to a lagging replica may
//! restore a deleted copy until it expires.
//!
//! Each call has [`CACHE_DEADLINE`]. After a failure no call is made for [`RETRY_PAUSE`], so that a
//! hanging Redis delays few requests; meanwhile every lookup reads Postgres.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Cmd;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::connect::{Redis, RedisFailure};
use crate::protocol::keys::Slot;
use crate::scripts;

static COMPARE_AND_SET_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/compare_and_set.lua")));

/// Deadline of a call: longer than a healthy Redis ever takes, shorter than a query to Postgres
/// may.
pub const CACHE_DEADLINE: Duration = Duration::from_millis(500);

/// Time without calls after a failure.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Time from a miss to the copy that a reader has to fill in.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// First character of a lease; no copy begins with it.
const LEASE_PREFIX: char = '?';

/// The cache of one installation. Cloning is cheap; clones share the pause after a failure.
#[derive(Debug, Clone)]
pub struct LeaseCache {
    redis: Redis,
    pause: Arc<Pause>,
}

#[derive(Debug)]
struct Pause {
    started: Instant,
    /// End of the pause, in milliseconds after `started`.
    until_ms: AtomicU64,
}

/// What a lookup finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEntry {
    /// The cached copy.
    Copy(String),
    /// No copy. The caller holds the lease to fill it in.
    Absent(Lease),
    /// Another reader holds the lease.
    Leased,
    /// Redis does not answer, or calls are paused.
    Unreachable,
}

/// The right to fill in a copy, until a writer deletes it or it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(String);

impl LeaseCache {
    /// A cache in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let pause = Pause {
            started: Instant::now(),
            until_ms: AtomicU64::new(0),
        };
        Self {
            redis,
            pause: Arc::new(pause),
        }
    }

    /// Returns whether calls are made, that is, not paused after a failure.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.now_ms() >= self.pause.until_ms.load(Ordering::Relaxed)
    }

    /// Looks up a copy, and takes the lease if there is none.
    pub async fn get(&self, key: &str) -> CacheEntry {
        let lease = format!("{LEASE_PREFIX}{:032x}", rand::random::<u128>());
        let mut command = redis::cmd("SET");
        command.arg(key).arg(&lease).arg("NX").arg("GET");
        command.arg("PX").arg(millis(LEASE_TTL));
        match self.query::<Option<String>>(key, &command).await {
            None => CacheEntry::Unreachable,
            Some(None) => CacheEntry::Absent(Lease(lease)),
            Some(Some(text)) if text.starts_with(LEASE_PREFIX) => CacheEntry::Leased,
            Some(Some(text)) => CacheEntry::Copy(text),
        }
    }

    /// Replaces a lease with a copy, unless the lease was deleted. Returns whether it did.
    pub async fn fill(&self, key: &str, lease: &Lease, copy: &str, ttl: Duration) -> bool {
        !ttl.is_zero() && self.compare_and_set(key, &lease.0, copy, Some(ttl)).await
    }

    /// Replaces a copy with a new one, unless it was changed or deleted. The new copy gets its own
    /// `ttl`, or else keeps that of the old one. Returns whether it did.
    pub async fn compare_and_set(
        &self,
        key: &str,
        old: &str,
        new: &str,
        ttl: Option<Duration>,
    ) -> bool {
        if !self.is_available() {
            return false;
        }
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(COMPARE_AND_SET_SCRIPT.get_hash())
            .arg(1)
            .arg(key);
        command.arg(old).arg(new).arg(ttl.map_or(0, millis));
        let swapped = self.redis.run(Slot::of(key), async |connection| {
            scripts::call(&COMPARE_AND_SET_SCRIPT, &command, connection).await
        });
        let reply = timeout(CACHE_DEADLINE, swapped).await;
        matches!(self.handle(reply), Some(redis::Value::Int(1)))
    }

    /// Deletes copies and leases: every later lookup reads Postgres as it is then. Unlike the other
    /// calls this one ignores the pause. After an error some of the keys may remain.
    pub async fn delete(&self, keys: &[String]) -> Result<(), RedisFailure> {
        for key in keys {
            let command = Cmd::del(key);
            let reply = self.redis.query::<u64>(Slot::of(key), &command);
            match timeout(CACHE_DEADLINE, reply).await {
                Ok(deleted) => deleted?,
                Err(_elapsed) => return Err(self.redis.timed_out(CACHE_DEADLINE)),
            };
        }
        Ok(())
    }

    async fn query<T: redis::FromRedisValue>(&self, key: &str, command: &Cmd) -> Option<T> {
        if !self.is_available() {
            return None;
        }
        let reply = timeout(CACHE_DEADLINE, self.redis.query(Slot::of(key), command)).await;
        self.handle(reply)
    }

    /// Starts the pause after a failure, and logs a warning for the first failure in a while.
    fn handle<T>(
        &self,
        reply: Result<Result<T, RedisFailure>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        let failure = match reply {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => self.redis.timed_out(CACHE_DEADLINE),
        };
        let now = self.now_ms();
        let until = self
            .pause
            .until_ms
            .swap(now + millis(RETRY_PAUSE), Ordering::Relaxed);
        if now >= until + 10 * millis(RETRY_PAUSE) {
            warn!(error = %failure, "the access cache in Redis is unavailable: reading from Postgres instead");
        } else {
            debug!(error = %failure, "the access cache in Redis is still unavailable");
        }
        None
    }

    fn now_ms(&self) -> u64 {
        // The offset makes the first failure of the process count as the first in a while.
        millis(self.pause.started.elapsed()) + 20 * millis(RETRY_PAUSE)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
