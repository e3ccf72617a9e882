//! The archive's counters, for `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The counters of one process. Cloning is cheap, and clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Runs archived: written, read back, and compared with their rows.
    pub runs: Counter,
    /// Their uncompressed bytes.
    pub raw_bytes: Counter,
    /// Their compressed bytes.
    pub stored_bytes: Counter,
    /// Attempts that failed.
    pub failures: Counter,
    /// Objects deleted, of runs that retention removed or of failed attempts.
    pub deleted: Counter,
    /// Failed reads, by reason.
    pub unread: Family<Reason, Counter>,
}

/// Why an archived run could not be read: `unreachable`, `missing`, `damaged` or `unset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason, in one word.
    pub reason: &'static str,
}

impl Metrics {
    /// Registers the counters of a worker.
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
            "Uncompressed bytes of archived runs",
            &self.raw_bytes,
        );
        counter(
            "runcast_archive_stored_bytes",
            "Compressed bytes of archived runs",
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

    /// Registers the counters of a gateway.
    pub fn register_reading(&self, registry: &mut Registry) {
        let help =
            "Reads of archived runs that failed, by reason: unreachable, missing, damaged, unset";
        registry.register("runcast_archive_unread", help, self.unread.clone());
    }
}
