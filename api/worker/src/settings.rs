//! What an operator sets for a worker.

use runcast_common::presence::liveness::LivenessThresholds;
use runcast_history::archive::metrics::Metrics;
use runcast_history::archive::object_store::ArchiveStore;

use crate::age::Age;
use crate::retention::Retention;

/// What an operator wants of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How long runs are kept.
    pub retention: Retention,
    /// Where old ones go.
    pub archiving: ArchiveSettings,
    /// How long a silence of an agent means what.
    pub silence: LivenessThresholds,
}

/// Where sealed runs go, and when.
#[derive(Debug, Clone)]
pub struct ArchiveSettings {
    /// Where, if anywhere.
    pub place: Option<ArchiveStore>,
    /// How long after they were sealed.
    pub after: Age,
    /// Counts what is done.
    pub meter: Metrics,
}
