//! What workers tell about background work, as metrics.
//!
//! Gauges describe the whole installation, so that any worker's are as good as another's: take the largest, not the sum.
//! They are renewed every [`EVERY`]; counters are of this process.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use chrono::Utc;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::context::Worker;
use crate::error::TaskError;
use runcast_store::job_status::JobKind;

/// Between two looks at the queue.
const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    kind: String,
    state: &'static str,
}

type Level = Gauge<i64, AtomicI64>;

/// The metrics of one worker. Cloning is cheap; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: Family<InState, Level>,
    due: Family<OfKind, Level>,
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        registry.register("runcast_jobs", "Background jobs that are not done, by kind and state; deliveries of webhooks are the kind delivery", self.jobs.clone());
        registry.register_with_unit("runcast_jobs_due", "For how long the first of the jobs that are due has been", Unit::Seconds, self.due.clone());
    }

    fn jobs(&self, kinds: &[JobKind]) {
        for one in kinds {
            let states = [
                ("waiting", one.waiting),
                ("running", one.running),
                ("retrying", one.retrying),
                ("dead", one.dead),
            ];
            for (state, count) in states {
                let kind = one.kind.clone();
                self.jobs.get_or_create(&InState { kind, state }).set(count);
            }
            let kind = one.kind.clone();
            let age = one
                .due_since
                .map_or(0, |since| (Utc::now() - since).num_seconds());
            self.due.get_or_create(&OfKind { kind }).set(age.max(0));
        }
    }
}

/// Looks at the queue until told to stop.
///
/// # Errors
/// [`TaskError`] if Postgres cannot be asked.
pub(super) async fn observe(worker: &Worker, stop: &CancellationToken) -> Result<(), TaskError> {
    loop {
        worker.meter.jobs(&worker.store.job_kinds().await?);
        let wait = tokio::time::sleep(EVERY.mul_f64(rand::rng().random_range(0.8..=1.2)));
        if stop.run_until_cancelled(wait).await.is_none() {
            return Ok(());
        }
    }
}
