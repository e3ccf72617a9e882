//! What an older process wrote after this one had read the folder: between that and its first word with
//! Redis this process has not replaced the older one yet.
//!
//! The records are known by what they say stands before them, so nothing of another history fits. Time:
//! that of reading the folder once more.

use runcast_common::protocol::seal::Seal;

use std::path::PathBuf;

use super::format::{RECORD_HEADER, scan};
use super::{Spool, folder};
use crate::batch::Batch;

impl Spool {
    /// The batches behind `known` up to the event of seq `until`, each with the seal over it and all
    /// before it; none if they are not all here.
    pub(crate) fn written_late(&self, known: Seal, until: u64) -> Option<Vec<(Batch, Seal)>> {
        let mut late = Vec::new();
        let mut seal = known;
        let older = |path: &PathBuf| folder::epoch_of(path) < Some(self.epoch.number);
        for path in folder::segments(&self.folder)
            .ok()?
            .iter()
            .filter(|path| older(path))
        {
            // One that is gone held nothing that is still owed.
            let bytes = std::fs::read(path).unwrap_or_default();
            for seen in scan(&bytes).records {
                let header = &seen.header;
                let fits = header.producer == self.owner.producer && header.before == seal;
                if !(fits && seen.whole && seal.events < until) {
                    continue;
                }
                let start = seen.at + RECORD_HEADER;
                let body = bytes.get(start..start + header.length as usize)?;
                let batch = Batch::new(seal.events + 1, header.count.into(), body.to_vec());
                seal = header.seal();
                late.push((batch, seal));
            }
        }
        (seal.events == until).then_some(late)
    }
}
