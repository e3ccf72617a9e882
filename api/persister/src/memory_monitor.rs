//! Measures every few seconds what waits in Redis: for the metrics of the buffer, and to keep Redis
//! within its memory budget.
//!
//! Only runs with unstored events are measured, since stored events are trimmed anyway. The ready
//! queue names these runs, also while Postgres is down, so an idle run costs nothing here either.
//! While Redis is over its budget:
//! - the biggest runs get a `cap` that the append script obeys. It ends after [`CAP_LIFE`] unless a
//!   further round renews it;
//! - all keys are gone through, at most once in [`TRIM_INTERVAL`], to trim what idle runs keep for
//!   viewers ([`crate::trim_idle`]).
//!
//! Every persister does this; all of them find and do the same. Before, a round lets the
//! [`ReadyGuard`] check the ready queue.
//!
//! Publishers can write to the meta of their runs. So a number there is only believed up to what
//! the whole Redis holds, and what a run is said to hold up to what its stream takes, which is
//! measured while Redis is over its budget: a run that claims much must not keep others from being
//! capped.
//!
//! Bounds: [`MAX_RUNS`] runs a round, [`MAX_CONCURRENT_CALLS`] calls in progress.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use rand::RngExt as _;
use redis::Value;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::log_limit::LogLimit;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT};
use runcast_common::scripts::LiveWindow;
use runcast_common::{ready_lag, redis, scripts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::memory_budget::{self, MemoryBudget, MemoryPressure};
use crate::metrics::{BufferStats, Metrics};
use crate::ready_entries;
use crate::ready_guard::ReadyGuard;
use crate::trim_idle::trim_idle_runs;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);

/// The same while Redis is close to its budget.
const INTERVAL_WHEN_TIGHT: Duration = Duration::from_secs(1);

/// How long a cap holds: several rounds, so that a slow round does not end it.
const CAP_LIFE: Duration = Duration::from_secs(15);

static CAP_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// Between two scans of all keys, each of which costs Redis some microseconds.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// Most runs of one round. Beyond them the metrics are too low, and big runs may be missed.
const MAX_RUNS: usize = 16 * 1024;

/// Calls in progress at the same time.
const MAX_CONCURRENT_CALLS: usize = 32;

/// A run with unstored events, and what it holds in Redis.
#[derive(Debug, Clone, Copy)]
struct WaitingRun {
    run: Uuid,
    events: u64,
    bytes: u64,
}

/// Measures what waits in Redis, and caps and trims runs while that is too much.
#[derive(Debug)]
pub(crate) struct MemoryMonitor {
    redis: Redis,
    keys: Keys,
    budget: MemoryBudget,
    pressure: MemoryPressure,
    window: LiveWindow,
    metrics: Metrics,
    is_tight: bool,
    trim_at: Instant,
    guard: ReadyGuard,
}

impl MemoryMonitor {
    pub(crate) fn new(
        redis: Redis,
        keys: Keys,
        budget: MemoryBudget,
        pressure: MemoryPressure,
        window: LiveWindow,
        guard: ReadyGuard,
        metrics: Metrics,
    ) -> Self {
        Self {
            redis,
            keys,
            budget,
            pressure,
            window,
            metrics,
            is_tight: false,
            trim_at: Instant::now(),
            guard,
        }
    }

    /// Runs rounds until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let interval = if self.is_tight {
                INTERVAL_WHEN_TIGHT
            } else {
                INTERVAL
            };
            let wait = tokio::time::sleep(interval.mul_f64(rand::rng().random_range(0.8..=1.2)));
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
            match stop.run_until_cancelled(self.round()).await {
                Some(Ok(())) => {}
                // The consumers of the ready queue log an outage as a warning.
                Some(Err(error)) => debug!(%error, "cannot measure what waits in Redis"),
                None => return,
            }
        }
    }

    async fn round(&mut self) -> Result<(), RedisFailure> {
        self.guard.check_all().await?;
        self.guard.requeue_if_due().await?;
        // Measure.
        let lag = ready_lag::read(&self.redis, &self.keys).await?;
        self.metrics.set_oldest_unstored(lag.oldest);
        let (used, maxmemory) = self.memory().await?;
        let is_over = self
            .budget
            .bytes(maxmemory)
            .is_some_and(|budget| used > budget);
        let waiting = self.waiting_runs(used, is_over).await?;
        let mut stats = BufferStats {
            runs: waiting.len() as u64,
            events: waiting
                .iter()
                .fold(0, |sum: u64, run| sum.saturating_add(run.events)),
            bytes: waiting
                .iter()
                .fold(0, |sum: u64, run| sum.saturating_add(run.bytes)),
            memory: used,
            ..BufferStats::default()
        };
        let budget = self.budget.bytes(maxmemory);
        if let Some(budget) = budget {
            stats.budget = budget;
            self.warn(used, budget);
            self.pressure.set(used > budget);
            // Cap the biggest runs.
            let sizes: Vec<u64> = waiting.iter().map(|run| run.bytes).collect();
            if let Some(cap) = memory_budget::cap_bytes(&sizes, used.saturating_sub(budget)) {
                let big = waiting.iter().filter(|run| run.bytes >= cap);
                let runs: Vec<Uuid> = big.map(|run| run.run).collect();
                stats.capped = runs.len() as u64;
                if let Some(rounds) = CAP_LOG.admit(1) {
                    let runs = runs.len();
                    let message = "Redis is over its budget: the biggest runs may not grow";
                    warn!(used, budget, runs, cap, rounds, "{message}");
                }
                self.cap_runs(runs, cap).await?;
            }
        }
        self.metrics.set_buffer(&stats);
        // Trim idle runs, which no cycle settles.
        if budget.is_some_and(|budget| used > budget) && Instant::now() >= self.trim_at {
            let window = self.pressure.limit(self.window);
            trim_idle_runs(&self.redis, &self.keys, window).await?;
            self.trim_at = Instant::now() + TRIM_INTERVAL;
        }
        Ok(())
    }

    fn warn(&mut self, used: u64, budget: u64) {
        let is_tight = memory_budget::is_tight(used, budget);
        if is_tight && !self.is_tight {
            warn!(
                used,
                budget, "Redis is close to its budget; is Postgres down, or too slow?"
            );
        }
        if !is_tight && self.is_tight {
            info!(used, budget, "Redis is well within its budget again");
        }
        self.is_tight = is_tight;
    }

    /// Used memory and `maxmemory`, in bytes; in a cluster the sum over all masters.
    async fn memory(&self) -> Result<(u64, u64), RedisFailure> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let (mut used, mut max) = (0, 0);
        for server in self.redis.masters().await? {
            let info: String = server.query(&command).await?;
            let field = |name: &str| {
                let mut lines = info.lines();
                let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                value.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
            };
            used += field("used_memory");
            max += field("maxmemory");
        }
        Ok((used, max))
    }

    /// The runs that the ready queue names, and what they hold. What concerns one key alone does
    /// not end the round.
    async fn waiting_runs(
        &self,
        used: u64,
        is_over: bool,
    ) -> Result<Vec<WaitingRun>, RedisFailure> {
        let reads = stream::iter(0..PARTITION_COUNT).map(|partition| self.ready_runs(partition));
        let runs: Vec<_> = reads.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await;
        let runs: HashSet<Uuid> = unless_outage(runs)?.into_iter().flatten().collect();
        let sizes = stream::iter(runs).map(|run| self.measure(run, used, is_over));
        let sizes: Vec<_> = sizes.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await;
        Ok(unless_outage(sizes)?.into_iter().flatten().collect())
    }

    async fn ready_runs(&self, partition: usize) -> Result<Vec<Uuid>, RedisFailure> {
        let mut command = redis::cmd("XRANGE");
        command
            .arg(self.keys.ready(partition))
            .arg(&["-", "+", "COUNT"]);
        command.arg(MAX_RUNS / PARTITION_COUNT);
        let slot = Keys::slot(partition);
        let reply: Value = self.redis.query(slot, &command).await?;
        Ok(ready_entries::runs(reply))
    }

    async fn measure(
        &self,
        run: Uuid,
        used: u64,
        is_over: bool,
    ) -> Result<Option<WaitingRun>, RedisFailure> {
        let mut command = redis::cmd("HMGET");
        let keys = self.keys.run(run);
        command.arg(keys.meta);
        command.arg(&["epoch", "seq", "watermark", "bytes", "freed"]);
        let meta: [Option<Vec<u8>>; 5] = self.redis.query(keys.slot, &command).await?;
        let [epoch, seq, watermark, bytes, freed] =
            meta.map(|field| String::from_utf8(field?).ok());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
        let (Some(epoch), Some(seq)) = (number(epoch), number(seq)) else {
            return Ok(None);
        };
        let stored: Option<EventId> = watermark.and_then(|text| text.parse().ok());
        let stored = stored.filter(|stored| stored.epoch == epoch);
        let bytes = number(bytes).unwrap_or(0);
        let mut bytes = bytes.saturating_sub(number(freed).unwrap_or(0)).min(used);
        if is_over && bytes >= memory_budget::MIN_CAP_BYTES {
            let mut measure = redis::cmd("MEMORY");
            measure.arg("USAGE").arg(&keys.stream);
            measure.arg("SAMPLES").arg(0);
            let taken: Option<u64> = self.redis.query(keys.slot, &measure).await?;
            bytes = bytes.min(taken.unwrap_or(0));
        }
        Ok(Some(WaitingRun {
            run,
            // An event takes at least a byte.
            events: seq
                .saturating_sub(stored.map_or(0, |stored| stored.seq))
                .min(used),
            bytes,
        }))
    }

    async fn cap_runs(&self, runs: Vec<Uuid>, bytes: u64) -> Result<(), RedisFailure> {
        let caps = stream::iter(runs).map(|run| self.cap_run(run, bytes));
        let caps: Vec<_> = caps.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await;
        unless_outage(caps).map(drop)
    }

    async fn cap_run(&self, run: Uuid, bytes: u64) -> Result<bool, RedisFailure> {
        let keys = self.keys.run(run);
        self.redis
            .run(keys.slot, async |connection| {
                scripts::cap(&keys, bytes, CAP_LIFE, connection).await
            })
            .await
    }
}

/// The results of calls that succeeded. A call that failed because of its key alone, which another
/// client may have written, is left out; an outage fails all.
fn unless_outage<T>(results: Vec<Result<T, RedisFailure>>) -> Result<Vec<T>, RedisFailure> {
    let mut succeeded = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(value) => succeeded.push(value),
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => debug!(%error, "left a key out of the measurement"),
        }
    }
    Ok(succeeded)
}
