//! What an operator may set about a worker.

use runcast_common::presence::liveness::LivenessThresholds;
use runcast_history::archive::metrics::Metrics;
use runcast_history::archive::object_store::ArchiveStore;

use crate::age::Age;
use crate::retention_rules::Retention;

/// What an operator may set about a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How long runs are kept.
    pub retention: Retention,
    /// Where old runs are archived.
    pub archiving: ArchiveSettings,
    /// After how long a silence an agent is stale, and lost.
    pub silence: LivenessThresholds,
}

/// Where sealed runs are archived, and when.
#[derive(Debug, Clone)]
pub struct ArchiveSettings {
    /// Where; none if runs are not archived.
    pub place: Option<ArchiveStore>,
    /// How long after a run was sealed.
    pub after: Age,
    /// Counts what is archived.
    pub meter: Metrics,
}
