//! What the archive counts, for `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The counters of one process. Cloning is cheap, and clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Objects that were compared with their rows and kept.
    pub runs: Counter,
    /// Their bytes, unpacked.
    pub raw_bytes: Counter,
    /// Their bytes.
    pub stored_bytes: Counter,
    /// Attempts that came to nothing.
    pub failures: Counter,
    /// Objects deleted: of runs that retention removed, or of attempts that came to nothing.
    pub deleted: Counter,
    /// Reads that failed, by why.
    pub unread: Family<Reason, Counter>,
}

/// Why an archived run could not be read: `unreachable`, `missing`, `damaged` or `unset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// In one word.
    pub reason: &'static str,
}

impl Metrics {
    /// Registers what a worker counts.
    pub fn register_writing(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "runcast_archive_runs",
            "Runs archived: written, read back, compared",
            &self.runs,
        );
        counter(
            "runcast_archive_raw_bytes",
            "Bytes of archived runs, unpacked",
            &self.raw_bytes,
        );
        counter(
            "runcast_archive_stored_bytes",
            "Bytes of archived runs as they are stored",
            &self.stored_bytes,
        );
        counter(
            "runcast_archive_failures",
            "Attempts to archive a run that failed",
            &self.failures,
        );
        counter(
            "runcast_archive_deleted",
            "Objects of the archive that were deleted",
            &self.deleted,
        );
    }

    /// Registers what a gateway counts.
    pub fn register_reading(&self, registry: &mut Registry) {
        let help =
            "Reads of archived runs that failed, by reason: unreachable, missing, damaged, unset";
        registry.register("runcast_archive_unread", help, self.unread.clone());
    }
}
