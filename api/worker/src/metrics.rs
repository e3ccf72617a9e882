//! The metrics of background work.
//!
//! Gauges describe the whole installation, so every worker reports the same: take the largest, not
//! the sum. They are renewed every [`REPORT_INTERVAL`].

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use chrono::Utc;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::error::TaskError;
use runcast_store::Store;
use runcast_store::job_status::JobKind;

/// How often the queue is read.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    kind: String,
    state: &'static str,
}

type GaugeI64 = Gauge<i64, AtomicI64>;

/// The metrics of one worker. Cloning is cheap; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: Family<StateLabels, GaugeI64>,
    due: Family<KindLabels, GaugeI64>,
    skipped_heartbeats: Counter,
    failed_scans: Counter,
    removed_keys: Counter,
    restores: Counter,
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        registry.register("runcast_jobs", "Background jobs that are not done, by kind and state; webhook deliveries have the kind delivery", self.jobs.clone());
        registry.register_with_unit("runcast_jobs_due", "For how long the oldest due job has been due", Unit::Seconds, self.due.clone());
        registry.register("runcast_worker_skipped_heartbeats", "Members, times and keys of the heartbeats that Runcast cannot have written, and that were removed", self.skipped_heartbeats.clone());
        registry.register("runcast_worker_failed_scans", "Scans of a partition for silent agents that failed because of the partition itself, not because a server was down", self.failed_scans.clone());
        registry.register("runcast_worker_restores", "How often Postgres was found to lack what it had stored, as after a restore", self.restores.clone());
        registry.register("runcast_worker_removed_keys", "Keys of runs and agents without a valid id that were removed", self.removed_keys.clone());
    }

    /// Counts that Postgres was found to lack what it had stored.
    pub(crate) fn count_restore(&self) {
        self.restores.inc();
    }

    /// Counts what was removed from the heartbeats because it is none.
    pub(crate) fn count_skipped(&self, heartbeats: u64) {
        self.skipped_heartbeats.inc_by(heartbeats);
    }

    /// Counts a partition that could not be scanned for silent agents.
    pub(crate) fn count_failed_scan(&self) {
        self.failed_scans.inc();
    }

    /// Counts a key that was removed because Runcast cannot have written it.
    pub(crate) fn count_removed_key(&self) {
        self.removed_keys.inc();
    }

    fn set_jobs(&self, kinds: &[JobKind]) {
        for jobs in kinds {
            let states = [
                ("waiting", jobs.waiting),
                ("running", jobs.running),
                ("retrying", jobs.retrying),
                ("dead", jobs.dead),
            ];
            for (state, count) in states {
                let kind = jobs.kind.clone();
                self.jobs
                    .get_or_create(&StateLabels { kind, state })
                    .set(count);
            }
            let kind = jobs.kind.clone();
            let seconds = jobs
                .due_since
                .map_or(0, |since| (Utc::now() - since).num_seconds());
            self.due
                .get_or_create(&KindLabels { kind })
                .set(seconds.max(0));
        }
    }
}

/// Reports the state of the queue until `stop`.
pub(crate) async fn report_jobs(
    metrics: &Metrics,
    store: &Store,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    loop {
        metrics.set_jobs(&store.job_kinds().await?);
        let wait = tokio::time::sleep(REPORT_INTERVAL.mul_f64(rand::rng().random_range(0.8..=1.2)));
        if stop.run_until_cancelled(wait).await.is_none() {
            return Ok(());
        }
    }
}
