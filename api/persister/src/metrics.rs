//! What a persister tells about its work, as metrics.
//!
//! Counters are of this process; gauges of the buffer describe the whole Redis, so that any persister's
//! are as good as another's: take the largest, not the sum.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use runcast_common::protocol::event;

/// What one transaction stored.
#[derive(Debug, Default)]
pub struct CommitStats {
    /// Rows written.
    pub rows: u64,
    /// Their bytes in Postgres' format.
    pub bytes: u64,
    /// Events that were stored already.
    pub replays: u64,
    /// Entries and lines that were no events.
    pub dead_letters: u64,
    /// From its first statement to its commit.
    pub took: Duration,
    /// When the oldest of its events were appended, Unix milliseconds of Redis.
    pub oldest_ms: Option<u64>,
}

/// What Redis holds, as the last survey found it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Runs with unstored events.
    pub runs: u64,
    /// Their unstored events.
    pub events: u64,
    /// Body bytes of theirs, stored and unstored.
    pub bytes: u64,
    /// Memory that Redis uses, in a cluster that of all masters together.
    pub memory: u64,
    /// What it may use; 0 if there is no budget.
    pub budget: u64,
    /// Runs that are told `full` because of it.
    pub capped: u64,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

/// The metrics of one persister. Cloning is cheap; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    writes: Count,
    replays: Count,
    rows: Count,
    bytes: Count,
    dead_letters: Count,
    reborn: Count,
    claimed: Count,
    outages: Count,
    transaction: Histogram,
    size: Histogram,
    lag: Histogram,
    buffered: Level,
    waiting: Level,
    held: Level,
    memory: Level,
    budget: Level,
    capped: Level,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            writes: Count::default(),
            replays: Count::default(),
            rows: Count::default(),
            bytes: Count::default(),
            dead_letters: Count::default(),
            reborn: Count::default(),
            claimed: Count::default(),
            outages: Count::default(),
            // 1 ms to 33 s.
            transaction: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            // 1 to 262,144 rows.
            size: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            // 1 ms to 4.7 hours: long enough for an outage of Postgres.
            lag: Histogram::new(exponential_buckets(0.001, 2.0, 25)),
            buffered: Level::default(),
            waiting: Level::default(),
            held: Level::default(),
            memory: Level::default(),
            budget: Level::default(),
            capped: Level::default(),
        }
    }
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, metric: &Count| registry.register(name, help, metric.clone());
        counter("redis_buffer_writes", "Events that were read from Redis and committed to Postgres, or found there", &self.writes);
        counter("redis_buffer_replays", "Events that came again although Postgres held them: a producer resent them after Redis lost them, or two persisters read the same", &self.replays);
        counter("runcast_persister_rows", "Rows committed", &self.rows);
        counter("runcast_persister_row_bytes", "Their bytes in Postgres' format", &self.bytes);
        counter("runcast_persister_dead_letters", "Entries and lines that were no events; see runcastd dead-letter", &self.dead_letters);
        counter("runcast_persister_reborn_runs", "Runs whose Redis went back in time", &self.reborn);
        counter("runcast_persister_claimed_runs", "Runs taken over because nobody had finished them", &self.claimed);
        counter("runcast_persister_failed_cycles", "Cycles that failed because Postgres or Redis was down", &self.outages);
        registry.register_with_unit("runcast_persister_transaction_duration", "From the first statement to the commit", Unit::Seconds, self.transaction.clone());
        registry.register("runcast_persister_transaction_rows", "Rows of a transaction", self.size.clone());
        registry.register_with_unit("runcast_persister_lag", "From the append of its oldest event to the commit of a transaction, by the clocks of Redis and of the persister", Unit::Seconds, self.lag.clone());
        let mut gauge = |name: &str, help: &str, metric: &Level| registry.register(name, help, metric.clone());
        gauge("redis_buffer_depth", "Events in Redis that Postgres does not hold yet", &self.buffered);
        gauge("runcast_redis_waiting_runs", "Runs with such events", &self.waiting);
        gauge("runcast_redis_waiting_runs_bytes", "Body bytes of these runs in Redis", &self.held);
        gauge("runcast_redis_memory_bytes", "Memory that Redis uses", &self.memory);
        gauge("runcast_redis_budget_bytes", "Memory that it may use before the biggest runs are told full; 0 if there is no budget", &self.budget);
        gauge("runcast_redis_capped_runs", "Runs that are told full because Redis is over its budget", &self.capped);
    }

    pub(super) fn committed(&self, tally: &CommitStats) {
        self.writes.inc_by(tally.rows + tally.replays);
        self.replays.inc_by(tally.replays);
        self.rows.inc_by(tally.rows);
        self.bytes.inc_by(tally.bytes);
        self.dead_letters.inc_by(tally.dead_letters);
        self.transaction.observe(tally.took.as_secs_f64());
        self.size.observe(number(tally.rows));
        if let Some(oldest) = tally.oldest_ms {
            let lag = event::now_ms().saturating_sub(oldest);
            self.lag.observe(Duration::from_millis(lag).as_secs_f64());
        }
    }

    pub(super) fn outage(&self) {
        self.outages.inc();
    }

    pub(super) fn reborn(&self) {
        self.reborn.inc();
    }

    pub(super) fn claimed(&self, runs: usize) {
        self.claimed.inc_by(runs as u64);
    }

    pub(super) fn buffer(&self, buffer: &Buffer) {
        self.buffered.set(level(buffer.events));
        self.waiting.set(level(buffer.runs));
        self.held.set(level(buffer.bytes));
        self.memory.set(level(buffer.memory));
        self.budget.set(level(buffer.budget));
        self.capped.set(level(buffer.capped));
    }
}

fn level(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A batch has some 10,000 rows, far below what a float holds exactly.
fn number(rows: u64) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}
