//! Copies in Redis of what Postgres holds, which never show what Postgres held before a change.
//!
//! A copy is one string key with a life. Whoever looks for one that is not there leaves a lease in the same command
//! (`SET NX GET`): a random text that nobody else knows, for [`LEASE_TTL`]. It then reads Postgres, and its copy
//! takes the lease's place only if that still stands there ([`LeaseCache::fill`], one script). Whoever has changed Postgres
//! deletes the key, be there a copy or a lease. So a reader who was slow, and holds what Postgres said before the
//! change, finds its lease gone and writes nothing, however late it comes; a reader who comes after the deletion reads
//! Postgres after the change. That needs no clock and no tombstone. It is as good as Redis is: a failover to a replica
//! that lagged behind may bring a deleted copy back, until its life is over.
//!
//! Each call has [`CACHE_DEADLINE`]. After one that failed none is tried for [`RETRY_PAUSE`], so that a Redis that hangs costs few
//! requests a wait: without it everything is read from Postgres.

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

static SWAP: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/compare_and_set.lua")));

/// Longest wait for an answer: longer than Redis ever takes while it is well, shorter than Postgres may be asked.
pub const CACHE_DEADLINE: Duration = Duration::from_millis(500);

/// How long Redis is left alone after it failed.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long a reader has from looking for a copy to making it.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// What a lease begins with; no copy does.
const LEASE_MARK: char = '?';

/// The copies of one installation. Cloning is cheap; clones rest together.
#[derive(Debug, Clone)]
pub struct LeaseCache {
    redis: Redis,
    rest: Arc<Rest>,
}

#[derive(Debug)]
struct Rest {
    since: Instant,
    /// Milliseconds after `since` at which Redis may be asked again.
    until: AtomicU64,
}

/// What stands in the place of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEntry {
    /// The copy.
    Copy(String),
    /// Nothing; who gets this may make the copy, with this lease.
    Absent(Lease),
    /// Somebody else is about to make the copy.
    Leased,
    /// Redis does not answer.
    Unreachable,
}

/// The right to make a copy, for as long as nobody has deleted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(String);

impl LeaseCache {
    /// Copies in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let rest = Rest {
            since: Instant::now(),
            until: AtomicU64::new(0),
        };
        Self {
            redis,
            rest: Arc::new(rest),
        }
    }

    /// True unless it is left alone because it failed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.now() >= self.rest.until.load(Ordering::Relaxed)
    }

    /// Looks for a copy.
    pub async fn look(&self, key: &str) -> CacheEntry {
        let lease = format!("{LEASE_MARK}{:032x}", rand::random::<u128>());
        let mut command = redis::cmd("SET");
        command.arg(key).arg(&lease).arg("NX").arg("GET");
        command.arg("PX").arg(millis(LEASE_TTL));
        match self.query::<Option<String>>(key, &command).await {
            None => CacheEntry::Unreachable,
            Some(None) => CacheEntry::Absent(Lease(lease)),
            Some(Some(text)) if text.starts_with(LEASE_MARK) => CacheEntry::Leased,
            Some(Some(text)) => CacheEntry::Copy(text),
        }
    }

    /// Makes a copy in the place of a lease, unless somebody has deleted that. True if it was made.
    pub async fn fill(&self, key: &str, lease: &Lease, copy: &str, life: Duration) -> bool {
        !life.is_zero() && self.swap(key, &lease.0, copy, Some(life)).await
    }

    /// Replaces a copy by its successor, with a life of its own or what is left of the old one's, unless somebody has
    /// changed or deleted it. True if it was replaced.
    pub async fn swap(&self, key: &str, old: &str, new: &str, life: Option<Duration>) -> bool {
        if !self.is_well() {
            return false;
        }
        let mut command = redis::cmd("EVALSHA");
        command.arg(SWAP.get_hash()).arg(1).arg(key);
        command.arg(old).arg(new).arg(life.map_or(0, millis));
        let swapped = self.redis.run(Slot::of(key), async |connection| {
            scripts::call(&SWAP, &command, connection).await
        });
        let answer = timeout(CACHE_DEADLINE, swapped).await;
        matches!(self.note(answer), Some(redis::Value::Int(1)))
    }

    /// Deletes copies and leases: after this, whoever looks reads Postgres as it is then. Unlike the other calls
    /// it does not spare a Redis that failed.
    ///
    /// # Errors
    /// [`RedisFailure`] if some may still be there.
    pub async fn delete(&self, keys: &[String]) -> Result<(), RedisFailure> {
        for key in keys {
            let command = Cmd::del(key);
            let asked = self.redis.query::<u64>(Slot::of(key), &command);
            match timeout(CACHE_DEADLINE, asked).await {
                Ok(answer) => answer?,
                Err(_elapsed) => return Err(self.redis.silent(CACHE_DEADLINE)),
            };
        }
        Ok(())
    }

    async fn query<T: redis::FromRedisValue>(&self, key: &str, command: &Cmd) -> Option<T> {
        if !self.is_well() {
            return None;
        }
        let answer = timeout(CACHE_DEADLINE, self.redis.query(Slot::of(key), command)).await;
        self.note(answer)
    }

    /// A failure is told once in a while, and costs Redis a rest.
    fn note<T>(
        &self,
        answer: Result<Result<T, RedisFailure>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        let failure = match answer {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => self.redis.silent(CACHE_DEADLINE),
        };
        let now = self.now();
        let until = self
            .rest
            .until
            .swap(now + millis(RETRY_PAUSE), Ordering::Relaxed);
        if now >= until + 10 * millis(RETRY_PAUSE) {
            warn!(error = %failure, "no copies in Redis for now: who may what is read from Postgres");
        } else {
            debug!(error = %failure, "still no copies in Redis");
        }
        None
    }

    fn now(&self) -> u64 {
        // It starts late enough that the first failure counts as one after a long time without.
        millis(self.rest.since.elapsed()) + 20 * millis(RETRY_PAUSE)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
