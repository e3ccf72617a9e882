//! Looks every few seconds at what waits in Redis: for the metrics of the buffer, and to keep Redis within
//! its budget.
//!
//! Only runs with unstored events are looked at, since what is stored is trimmed anyhow: the line names
//! them, also while Postgres is down. So an idle run costs nothing here either. Above the budget the biggest
//! runs get a `cap` for [`CAP_LIFE`] that the append script obeys; without a further survey it ends by
//! itself. What idle runs keep for viewers is taken back ([`trim_idle`]), at most once in [`RELIEF_EVERY`]. All
//! persisters survey; what they find and do is the same.
//!
//! Bounds: [`MOST_RUNS`] runs a survey, [`AT_ONCE`] calls under way.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::RngExt as _;
use redis::Value;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, PARTITIONS};
use runcast_common::scripts::Window;
use runcast_common::{redis, scripts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::memory_budget::{self, MemoryBudget, MemoryPressure};
use super::metrics::{Buffer, Metrics};
use super::{ready_queue, trim_idle};

/// Between two surveys.
const EVERY: Duration = Duration::from_secs(5);

/// The same while Redis is close to its budget.
const EVERY_WHEN_TIGHT: Duration = Duration::from_secs(1);

/// How long a cap holds: several surveys, so that a slow one does not let go of it.
const CAP_LIFE: Duration = Duration::from_secs(15);

/// Between two rounds through all keys, each of which costs Redis some microseconds.
const RELIEF_EVERY: Duration = Duration::from_secs(10);

/// Most runs of one survey; beyond them figures are too low, and small runs may go unseen.
const MOST_RUNS: usize = 16 * 1024;

/// Calls under way at the same time.
const AT_ONCE: usize = 32;

/// One run with unstored events.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    run: Uuid,
    events: u64,
    bytes: u64,
}

/// Looks at what waits.
#[derive(Debug)]
pub(super) struct MemoryMonitor {
    redis: Redis,
    keys: Keys,
    budget: MemoryBudget,
    pressure: MemoryPressure,
    window: Window,
    meter: Metrics,
    tight: bool,
    relief_at: Instant,
}

impl MemoryMonitor {
    pub(super) fn new(
        redis: Redis,
        keys: Keys,
        budget: MemoryBudget,
        pressure: MemoryPressure,
        window: Window,
        meter: Metrics,
    ) -> Self {
        Self {
            redis,
            keys,
            budget,
            pressure,
            window,
            meter,
            tight: false,
            relief_at: Instant::now(),
        }
    }

    /// Surveys until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let every = if self.tight { EVERY_WHEN_TIGHT } else { EVERY };
            let wait = tokio::time::sleep(every.mul_f64(rand::rng().random_range(0.8..=1.2)));
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
            match stop.run_until_cancelled(self.once()).await {
                Some(Ok(())) => {}
                // Whoever takes runs from the line tells of it.
                Some(Err(error)) => debug!(%error, "cannot survey what waits in Redis"),
                None => return,
            }
        }
    }

    async fn once(&mut self) -> Result<(), RedisFailure> {
        let (used, maxmemory) = self.memory().await?;
        let waiting = self.waiting().await?;
        let mut buffer = Buffer {
            runs: waiting.len() as u64,
            events: waiting.iter().map(|one| one.events).sum(),
            bytes: waiting.iter().map(|one| one.bytes).sum(),
            memory: used,
            ..Buffer::default()
        };
        if let Some(budget) = self.budget.bytes(maxmemory) {
            buffer.budget = budget;
            self.warn(used, budget);
            self.pressure.set(used > budget);
            let sizes: Vec<u64> = waiting.iter().map(|one| one.bytes).collect();
            if let Some(cap) = memory_budget::cap(&sizes, used.saturating_sub(budget)) {
                let big = waiting.iter().filter(|one| one.bytes >= cap);
                let runs: Vec<Uuid> = big.map(|one| one.run).collect();
                buffer.capped = runs.len() as u64;
                warn!(
                    used,
                    budget,
                    runs = runs.len(),
                    cap,
                    "Redis is over its budget: the biggest runs may not grow"
                );
                self.cap(runs, cap).await?;
            }
        }
        self.meter.buffer(&buffer);
        if buffer.budget > 0 && used > buffer.budget && Instant::now() >= self.relief_at {
            let window = self.pressure.fit(self.window);
            trim_idle::take_back(&self.redis, &self.keys, window).await?;
            self.relief_at = Instant::now() + RELIEF_EVERY;
        }
        Ok(())
    }

    fn warn(&mut self, used: u64, budget: u64) {
        let tight = memory_budget::is_tight(used, budget);
        if tight && !self.tight {
            warn!(
                used,
                budget, "Redis is close to its budget; is Postgres down, or too slow?"
            );
        }
        if !tight && self.tight {
            info!(used, budget, "Redis is well within its budget again");
        }
        self.tight = tight;
    }

    /// Memory that is used, and `maxmemory`; in a cluster of all masters together.
    async fn memory(&self) -> Result<(u64, u64), RedisFailure> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let (mut used, mut most) = (0, 0);
        for server in self.redis.masters().await? {
            let info: String = server.query(&command).await?;
            let field = |name: &str| {
                let mut lines = info.lines();
                let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                value.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
            };
            used += field("used_memory");
            most += field("maxmemory");
        }
        Ok((used, most))
    }

    /// The runs that the line names, and what they hold.
    async fn waiting(&self) -> Result<Vec<Waiting>, RedisFailure> {
        let lines = stream::iter(0..PARTITIONS).map(|partition| self.named(partition));
        let named: Vec<Vec<Uuid>> = lines.buffer_unordered(AT_ONCE).try_collect().await?;
        let runs: HashSet<Uuid> = named.into_iter().flatten().collect();
        let sizes = stream::iter(runs).map(|run| self.size(run));
        let sizes: Vec<Option<Waiting>> = sizes.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(sizes.into_iter().flatten().collect())
    }

    async fn named(&self, partition: usize) -> Result<Vec<Uuid>, RedisFailure> {
        let mut command = redis::cmd("XRANGE");
        command
            .arg(self.keys.ready(partition))
            .arg(&["-", "+", "COUNT"]);
        command.arg(MOST_RUNS / PARTITIONS);
        let slot = Keys::slot(partition);
        let entries: Value = self.redis.query(slot, &command).await?;
        Ok(ready_queue::runs(entries))
    }

    async fn size(&self, run: Uuid) -> Result<Option<Waiting>, RedisFailure> {
        let mut command = redis::cmd("HMGET");
        let keys = self.keys.run(run);
        command.arg(keys.meta);
        command.arg(&["epoch", "seq", "watermark", "bytes", "freed"]);
        let meta: [Option<String>; 5] = self.redis.query(keys.slot, &command).await?;
        let [epoch, seq, watermark, bytes, freed] = meta;
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
        let (Some(epoch), Some(seq)) = (number(epoch), number(seq)) else {
            return Ok(None);
        };
        let stored: Option<EventId> = watermark.and_then(|text| text.parse().ok());
        let stored = stored.filter(|stored| stored.epoch == epoch);
        let bytes = number(bytes).unwrap_or(0);
        Ok(Some(Waiting {
            run,
            events: seq.saturating_sub(stored.map_or(0, |stored| stored.seq)),
            bytes: bytes.saturating_sub(number(freed).unwrap_or(0)),
        }))
    }

    async fn cap(&self, runs: Vec<Uuid>, bytes: u64) -> Result<(), RedisFailure> {
        let caps = stream::iter(runs).map(|run| self.cap_one(run, bytes));
        let caps = caps.buffer_unordered(AT_ONCE);
        caps.try_for_each(async |_known| Ok(())).await
    }

    async fn cap_one(&self, run: Uuid, bytes: u64) -> Result<bool, RedisFailure> {
        let keys = self.keys.run(run);
        self.redis
            .run(keys.slot, async |connection| {
                scripts::cap(&keys, bytes, CAP_LIFE, connection).await
            })
            .await
    }
}
