//! Reads the entries of a cycle: what each of its runs holds beyond its watermark.
//!
//! The reads of many runs go over one connection without waiting for each other,
//! [`MAX_CONCURRENT_READS`] at a time. Reading ends once [`BATCH_BYTES`] or [`BATCH_EVENTS`] have
//! been read; the runs that were not reached go back to the schedule. Since the reads in progress
//! at that moment are completed, each with up to [`MIN_SHARE_BYTES`], a cycle reads at most about
//! twice [`BATCH_BYTES`]. A run that cannot be read does not keep the others from being read.

use futures::future::join_all;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;

use crate::error::PersistError;
use crate::read_run::{PendingEntries, ReadOutcome, read_run};
use crate::ready_entries::ReadyRun;
use runcast_store::Store;

/// Body bytes after which a transaction takes no further run: large enough to make its fixed cost
/// small, small enough to be committed in a tenth of a second or two.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The same in events, for short ones.
const BATCH_EVENTS: u64 = 32 * 1024;

/// Runs that are read at the same time.
const MAX_CONCURRENT_READS: usize = 16;

/// Body bytes that one run may store in a cycle while others wait; alone it may fill the batch.
const MIN_SHARE_BYTES: usize = 512 * 1024;

/// What a cycle has read.
#[derive(Debug, Default)]
pub(crate) struct BatchRead<'a> {
    /// What is to be stored, by run.
    pub(crate) pending: Vec<PendingEntries>,
    /// Runs of which everything is stored.
    pub(crate) up_to_date: Vec<&'a ReadyRun>,
    /// Runs whose stream does not continue what is stored, with the watermark it was compared with.
    pub(crate) diverged: Vec<(&'a ReadyRun, EventId)>,
    /// Runs that Postgres does not know.
    pub(crate) unknown: Vec<&'a ReadyRun>,
    /// Runs that cannot be read, although Redis answers.
    pub(crate) unreadable: Vec<(&'a ReadyRun, EventId, PersistError)>,
    /// How many of the cycle's runs, from the first on, were read.
    pub(crate) runs: usize,
    /// There was more than fits in a batch.
    pub(crate) is_full: bool,
}

/// Reads from these runs, in their order, until the batch is full.
pub(crate) async fn read_batch<'a>(
    redis: &Redis,
    store: &Store,
    keys: &Keys,
    runs: &'a [ReadyRun],
) -> Result<BatchRead<'a>, PersistError> {
    let ids: Vec<_> = runs.iter().map(|run| run.run).collect();
    let states = store.watermarks(&ids).await?;
    let share_bytes = (BATCH_BYTES / runs.len().max(1)).max(MIN_SHARE_BYTES);
    let mut read = BatchRead::default();
    let (mut bytes, mut events) = (0, 0);
    for group in runs.chunks(MAX_CONCURRENT_READS) {
        let reads = group.iter().map(async |run| {
            let state = states.get(&run.run)?;
            Some(read_run(redis, &keys.run(run.run), state, share_bytes).await)
        });
        for (run, outcome) in group.iter().zip(join_all(reads).await) {
            match outcome {
                Some(Ok(ReadOutcome::Pending(entries))) => {
                    bytes += entries.bytes();
                    events += entries.events();
                    read.pending.push(entries);
                }
                Some(Ok(ReadOutcome::UpToDate)) => read.up_to_date.push(run),
                Some(Ok(ReadOutcome::Diverged { watermark })) => {
                    read.diverged.push((run, watermark));
                }
                Some(Err(error)) if error.is_outage() => return Err(error),
                Some(Err(error)) => {
                    let watermark = states.get(&run.run).map(|state| state.watermark);
                    read.unreadable
                        .push((run, watermark.unwrap_or_default(), error));
                }
                None => read.unknown.push(run),
            }
        }
        read.runs += group.len();
        read.is_full = bytes >= BATCH_BYTES || events >= BATCH_EVENTS;
        if read.is_full {
            break;
        }
    }
    Ok(read)
}
