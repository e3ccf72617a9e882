//! Stores the entries of a cycle in one transaction: lock the watermarks, build the rows, COPY
//! them, move the watermarks, commit ([`runcast_store::ingest`]).
//!
//! A cycle builds its rows under the lock, because only then is it certain which of its events are
//! already stored.

use std::collections::HashMap;

use runcast_common::presence::run_update::RunUpdate;
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use crate::build_batch::{BuiltBatch, build_batch};
use crate::error::PersistError;
use crate::metrics::{CommitStats, Metrics};
use crate::read_run::PendingEntries;
use runcast_store::Store;
use runcast_store::ingest::Ingested;
use runcast_store::run_states::RunState;

/// What a transaction stored.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// How far each run is stored now.
    pub(crate) states: HashMap<Uuid, RunState>,
    /// Status changes, and agents that came back.
    pub(crate) updates: Vec<RunUpdate>,
}

/// Stores the pending entries of these runs, all of them or none.
pub(crate) async fn commit(
    store: &Store,
    metrics: &Metrics,
    pending: &[PendingEntries],
) -> Result<Committed, PersistError> {
    let ids: Vec<Uuid> = pending.iter().map(|entries| entries.run).collect();
    let started = Instant::now();
    let producers: Vec<(Uuid, Uuid)> = pending.iter().flat_map(PendingEntries::producers).collect();
    let transaction = store.begin_ingest(&ids, &producers).await?;
    let BuiltBatch {
        batch,
        mut states,
        replays,
        missing,
    } = build_batch(pending, transaction.states());
    let mut stats = CommitStats {
        replays,
        missing,
        rows: batch.rows.rows(),
        bytes: batch.rows.bytes(),
        dead_letters: batch.dead_letters.len() as u64,
        ..CommitStats::default()
    };
    debug!(runs = states.len(), rows = stats.rows, "storing");
    let Ingested { ended, updates } = transaction.commit(batch).await?;
    stats.took = started.elapsed();
    stats.oldest_ms = pending.iter().filter_map(PendingEntries::oldest_ms).min();
    metrics.count_commit(&stats);
    // The transaction has derived which runs are over.
    for (run, status) in ended {
        if let Some(state) = states.get_mut(&run) {
            state.ended = status;
        }
    }
    Ok(Committed { states, updates })
}
