//! The metrics of a persister.
//!
//! Counters are of this process. Gauges of the buffer describe the whole Redis, so every persister
//! reports the same: take the largest, not the sum.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use runcast_common::protocol::event;

use crate::error::PersistError;

/// What one transaction stored.
#[derive(Debug, Default)]
pub(crate) struct CommitStats {
    /// Rows written.
    pub(crate) rows: u64,
    /// Bytes of the rows in Postgres' format.
    pub(crate) bytes: u64,
    /// Events that were already stored.
    pub(crate) replays: u64,
    /// Entries and lines that are not events.
    pub(crate) dead_letters: u64,
    /// Events that no store holds; each has a gap in its place.
    pub(crate) missing: u64,
    /// From the first statement to the commit.
    pub(crate) took: Duration,
    /// When the oldest of the events were appended, in Unix milliseconds of Redis.
    pub(crate) oldest_ms: Option<u64>,
}

/// What Redis holds, as the memory monitor last measured it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferStats {
    /// Runs with unstored events.
    pub(crate) runs: u64,
    /// Their unstored events.
    pub(crate) events: u64,
    /// Their body bytes, stored and unstored.
    pub(crate) bytes: u64,
    /// Memory that Redis uses; in a cluster the sum over all masters.
    pub(crate) memory: u64,
    /// Memory that it may use; 0 if there is no budget.
    pub(crate) budget: u64,
    /// Runs that are answered `full` because of it.
    pub(crate) capped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutageLabels {
    reason: &'static str,
}

type CounterU64 = Counter<u64, AtomicU64>;
type GaugeI64 = Gauge<i64, AtomicI64>;

/// The metrics of one persister. Cloning is cheap; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    writes: CounterU64,
    replays: CounterU64,
    rows: CounterU64,
    bytes: CounterU64,
    dead_letters: CounterU64,
    rebirths: CounterU64,
    takeovers: CounterU64,
    outages: Family<OutageLabels, CounterU64>,
    missing: CounterU64,
    unknown_runs: CounterU64,
    failed_runs: CounterU64,
    repaired_runs: CounterU64,
    ready_garbage: CounterU64,
    transaction: Histogram,
    transaction_rows: Histogram,
    lag: Histogram,
    unstored_events: GaugeI64,
    waiting_runs: GaugeI64,
    waiting_bytes: GaugeI64,
    memory: GaugeI64,
    budget: GaugeI64,
    capped_runs: GaugeI64,
    oldest_unstored: GaugeI64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            writes: CounterU64::default(),
            replays: CounterU64::default(),
            rows: CounterU64::default(),
            bytes: CounterU64::default(),
            dead_letters: CounterU64::default(),
            rebirths: CounterU64::default(),
            takeovers: CounterU64::default(),
            outages: Family::default(),
            missing: CounterU64::default(),
            unknown_runs: CounterU64::default(),
            failed_runs: CounterU64::default(),
            repaired_runs: CounterU64::default(),
            ready_garbage: CounterU64::default(),
            // 1 ms to 33 s.
            transaction: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            // 1 to 262,144 rows.
            transaction_rows: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            // 1 ms to 4.7 hours: long enough for an outage of Postgres.
            lag: Histogram::new(exponential_buckets(0.001, 2.0, 25)),
            unstored_events: GaugeI64::default(),
            waiting_runs: GaugeI64::default(),
            waiting_bytes: GaugeI64::default(),
            memory: GaugeI64::default(),
            budget: GaugeI64::default(),
            capped_runs: GaugeI64::default(),
            oldest_unstored: GaugeI64::default(),
        }
    }
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, metric: &CounterU64| registry.register(name, help, metric.clone());
        counter("redis_buffer_writes", "Events that were read from Redis and committed to Postgres, or found there", &self.writes);
        counter("redis_buffer_replays", "Events that came again although Postgres holds them: a producer resent them after Redis lost them, or two persisters read the same ones", &self.replays);
        counter("runcast_persister_rows", "Rows committed", &self.rows);
        counter("runcast_persister_row_bytes", "Bytes of the committed rows, in Postgres' format", &self.bytes);
        counter("runcast_persister_dead_letters", "Entries and lines that are not events; see runcastd dead-letter", &self.dead_letters);
        counter("runcast_persister_reborn_runs", "Runs moved to a new epoch because Redis went back in time", &self.rebirths);
        counter("runcast_persister_claimed_runs", "Runs taken over because no persister had finished them", &self.takeovers);
        counter("runcast_persister_missing_events", "Events that no store holds; a gap stands in their place", &self.missing);
        counter("runcast_persister_unknown_runs", "Ready entries of runs that Postgres does not know; they are taken out of the queue", &self.unknown_runs);
        counter("runcast_persister_failed_runs", "Attempts at a run that failed because of the run itself, not because a server was down", &self.failed_runs);
        counter("runcast_persister_repaired_runs", "Runs from which a key was removed that Runcast cannot have written", &self.repaired_runs);
        counter("runcast_persister_skipped_ready_entries", "Entries and keys of the ready queue that Runcast cannot have written, and that were removed", &self.ready_garbage);
        for reason in PersistError::outages() {
            // Born at 0, so that the first one is an increase.
            drop(self.outages.get_or_create(&OutageLabels { reason }));
        }
        registry.register("runcast_persister_failed_cycles", "Cycles, and reads of the ready queue, that failed because Postgres or Redis did no work, by reason", self.outages.clone());
        registry.register_with_unit("runcast_persister_transaction_duration", "From the first statement to the commit", Unit::Seconds, self.transaction.clone());
        registry.register("runcast_persister_transaction_rows", "Rows of a transaction", self.transaction_rows.clone());
        registry.register_with_unit("runcast_persister_lag", "From the append of its oldest event to the commit of a transaction, by the clocks of Redis and of the persister", Unit::Seconds, self.lag.clone());
        let mut gauge = |name: &str, help: &str, metric: &GaugeI64| registry.register(name, help, metric.clone());
        gauge("redis_buffer_depth", "Events in Redis that Postgres does not hold yet", &self.unstored_events);
        gauge("runcast_oldest_unstored_seconds", "For how long the first run of the ready queue has waited to be stored", &self.oldest_unstored);
        gauge("runcast_redis_waiting_runs", "Runs with events that Postgres does not hold yet", &self.waiting_runs);
        gauge("runcast_redis_waiting_runs_bytes", "Body bytes of these runs in Redis", &self.waiting_bytes);
        gauge("runcast_redis_memory_bytes", "Memory that Redis uses", &self.memory);
        gauge("runcast_redis_budget_bytes", "Memory that Redis may use before the biggest runs are answered full; 0 if there is no budget", &self.budget);
        gauge("runcast_redis_capped_runs", "Runs that are answered full because Redis is over its budget", &self.capped_runs);
    }

    pub(crate) fn count_commit(&self, stats: &CommitStats) {
        self.writes.inc_by(stats.rows + stats.replays);
        self.replays.inc_by(stats.replays);
        self.rows.inc_by(stats.rows);
        self.bytes.inc_by(stats.bytes);
        self.dead_letters.inc_by(stats.dead_letters);
        self.missing.inc_by(stats.missing);
        self.transaction.observe(stats.took.as_secs_f64());
        self.transaction_rows.observe(rows_f64(stats.rows));
        if let Some(oldest) = stats.oldest_ms {
            let lag = event::now_ms().saturating_sub(oldest);
            self.lag.observe(Duration::from_millis(lag).as_secs_f64());
        }
    }

    /// Counts a cycle or a read of the ready queue that failed for a reason of
    /// [`PersistError::outage`].
    pub(crate) fn count_outage(&self, reason: &'static str) {
        self.outages.get_or_create(&OutageLabels { reason }).inc();
    }

    pub(crate) fn set_oldest_unstored(&self, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.oldest_unstored.set(seconds);
    }

    pub(crate) fn count_rebirth(&self) {
        self.rebirths.inc();
    }

    pub(crate) fn count_unknown_runs(&self, runs: u64) {
        self.unknown_runs.inc_by(runs);
    }

    pub(crate) fn count_failed_run(&self) {
        self.failed_runs.inc();
    }

    pub(crate) fn count_repair(&self) {
        self.repaired_runs.inc();
    }

    pub(crate) fn count_ready_garbage(&self, removed: u64) {
        self.ready_garbage.inc_by(removed);
    }

    pub(crate) fn count_takeover(&self, runs: usize) {
        self.takeovers.inc_by(runs as u64);
    }

    pub(crate) fn set_buffer(&self, stats: &BufferStats) {
        self.unstored_events.set(gauge_value(stats.events));
        self.waiting_runs.set(gauge_value(stats.runs));
        self.waiting_bytes.set(gauge_value(stats.bytes));
        self.memory.set(gauge_value(stats.memory));
        self.budget.set(gauge_value(stats.budget));
        self.capped_runs.set(gauge_value(stats.capped));
    }
}

fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A batch has some 10,000 rows, far below what a float holds exactly.
fn rows_f64(rows: u64) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}
