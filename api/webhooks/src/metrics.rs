//! The metrics of webhooks: attempts by outcome, and how long receivers take to answer.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The metrics of one process. Cloning is cheap; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    attempts: Family<OutcomeLabel, Counter<u64, AtomicU64>>,
    took: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            // 1 ms to 33 s.
            took: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "runcast_webhook_attempts",
            "Attempts to deliver to webhooks: delivered, failed, or failed for the last time",
            self.attempts.clone(),
        );
        registry.register_with_unit(
            "runcast_webhook_attempt_duration",
            "How long receivers of webhooks took to answer",
            Unit::Seconds,
            self.took.clone(),
        );
    }

    pub(crate) fn count_attempt(&self, outcome: &'static str, took: Duration) {
        self.attempts.get_or_create(&OutcomeLabel { outcome }).inc();
        self.took.observe(took.as_secs_f64());
    }
}
