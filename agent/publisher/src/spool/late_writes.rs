//! Events that an older process wrote after this one had read the folder: the older process is
//! fenced only once this one has reached Redis.
//!
//! Records are recognized by the seal before them, so records of another history do not match.
//! Time: that of reading the folder once more.

use std::path::PathBuf;

use runcast_common::protocol::seal::Seal;

use super::directory;
use super::format::{RECORD_HEADER_BYTES, scan};
use super::writer::Spool;
use crate::queue::batch::Batch;

impl Spool {
    /// The batches behind `known` up to the seq `until`, each with the seal over it and everything
    /// before it; none unless all of them are found.
    pub(crate) fn written_late(&self, known: Seal, until: u64) -> Option<Vec<(Batch, Seal)>> {
        let mut late = Vec::new();
        let mut seal = known;
        let is_older = |path: &PathBuf| directory::epoch_of(path) < Some(self.epoch());
        let mut segments = directory::segments(self.folder()).ok()?;
        segments.retain(is_older);
        for path in segments {
            // A segment that was deleted meanwhile is durable, so its events are not needed.
            let bytes = std::fs::read(path).unwrap_or_default();
            for record in scan(&bytes).records {
                let header = &record.header;
                let matches = header.producer == self.producer() && header.before == seal;
                if !(matches && record.is_whole && seal.events < until) {
                    continue;
                }
                let start = record.offset + RECORD_HEADER_BYTES;
                let body = bytes.get(start..start + header.length as usize)?;
                let batch = Batch::new(seal.events + 1, header.count.into(), body.to_vec());
                seal = header.seal();
                late.push((batch, seal));
            }
        }
        (seal.events == until).then_some(late)
    }
}
