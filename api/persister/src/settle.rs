//! Tells Redis what Postgres holds of a run, by `settle.lua`: it acknowledges the ready entries,
//! trims the stream to the live window, and wakes viewers and producers.
//!
//! While Redis exceeds its memory budget, the live window is smaller ([`MemoryPressure`]). A run
//! that settles with more behind its watermark goes to the back of the ready queue.
//!
//! A run whose stream diverged from Postgres is reborn instead (`rebirth.lua`): its events get new
//! ids in a larger epoch, and a later cycle stores them. Of a deleted run nothing is stored: what
//! its agents have published since is removed, which also acknowledges it.

use std::collections::HashMap;

use futures::future::try_join_all;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, PERSISTER_GROUP};
use runcast_common::redis;
use runcast_common::run_deletion;
use runcast_common::scripts::{self, LiveWindow, Settle, SettleOutcome};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::error::PersistError;
use crate::memory_budget::MemoryPressure;
use crate::metrics::Metrics;
use crate::read_batch::BatchRead;
use crate::ready_entries::ReadyRun;
use runcast_store::Store;
use runcast_store::ingest::RunState;

/// Settles runs. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    pub(crate) redis: Redis,
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) window: LiveWindow,
    pub(crate) pressure: MemoryPressure,
    pub(crate) metrics: Metrics,
}

impl Settler {
    /// Settles the runs that have nothing to store, and gives diverged runs a larger epoch.
    pub(crate) async fn settle_without_entries(
        &self,
        read: &BatchRead<'_>,
    ) -> Result<(), PersistError> {
        self.settle_unknown(&read.unknown).await?;
        let diverged = read.diverged.iter().map(|(run, _)| run.run);
        let up_to_date = read.up_to_date.iter().map(|run| run.run);
        let ids: Vec<Uuid> = up_to_date.chain(diverged).collect();
        if ids.is_empty() {
            return Ok(());
        }
        // Rare, and the only place where the state of producers matters before the lock.
        let states = self.store.run_states(&ids).await?;
        let settles = read.up_to_date.iter().map(async |run| {
            let state = states.get(&run.run).cloned().unwrap_or_default();
            self.settle(run, &state).await
        });
        try_join_all(settles).await?;
        let rebirths = read.diverged.iter().map(async |(run, compared)| {
            let state = states.get(&run.run).cloned().unwrap_or_default();
            if state.watermark == *compared {
                self.rebirth(run, &state).await
            } else {
                // Another persister has stored more meanwhile: the run goes to the back of the
                // queue.
                self.settle(run, &state).await
            }
        });
        try_join_all(rebirths).await?;
        Ok(())
    }

    /// Settles the runs that Postgres does not know. What an agent wrote to a deleted run leaves
    /// Redis, and the agent is refused from then on.
    async fn settle_unknown(&self, runs: &[&ReadyRun]) -> Result<(), PersistError> {
        if runs.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let deleted = self.store.deleted_among(&ids).await?;
        let settles = runs.iter().map(async |run| {
            if deleted.contains(&run.run) {
                let (redis, keys) = (&self.redis, &self.keys);
                run_deletion::remove_keys(redis, keys, run.run, &run.ready_ids, &[]).await?;
                info!(run = %run.run, "removed what was published to a deleted run");
                return Ok(());
            }
            warn!(run = %run.run, "Postgres does not know this run; leaving its stream alone");
            self.take_out(run).await
        });
        try_join_all(settles).await?;
        Ok(())
    }

    /// Takes a run out of the ready queue whose stream cannot be stored: settling it would queue it
    /// again at once, without end. The first append some seconds later queues it again.
    async fn take_out(&self, run: &ReadyRun) -> Result<(), PersistError> {
        if run.ready_ids.is_empty() {
            return Ok(());
        }
        let keys = self.keys.run(run.run);
        let mut pipeline = redis::pipe();
        let acknowledge = pipeline.cmd("XACK").arg(&keys.ready).arg(PERSISTER_GROUP);
        acknowledge.arg(&run.ready_ids).ignore();
        let delete = pipeline.cmd("XDEL").arg(&keys.ready);
        delete.arg(&run.ready_ids).ignore();
        let taken_out = self.redis.run(keys.slot, async |connection| {
            pipeline.query_async::<()>(connection).await
        });
        Ok(taken_out.await?)
    }

    /// Settles the runs that a transaction has stored.
    pub(crate) async fn settle_committed(
        &self,
        runs: &[ReadyRun],
        states: &HashMap<Uuid, RunState>,
    ) -> Result<(), PersistError> {
        let settles = runs
            .iter()
            .filter_map(|run| Some(self.settle(run, states.get(&run.run)?)));
        try_join_all(settles).await?;
        Ok(())
    }

    async fn settle(&self, run: &ReadyRun, state: &RunState) -> Result<(), PersistError> {
        let durable = durable_seqs(state);
        let settle = Settle {
            watermark: state.watermark,
            sealed: state.ended.as_deref(),
            ready_ids: &run.ready_ids,
            durable: &durable,
            window: self.pressure.limit(self.window),
        };
        let keys = self.keys.run(run.run);
        let settled = self
            .redis
            .run(keys.slot, async |connection| {
                settle.call(&keys, connection).await
            })
            .await?;
        if settled == SettleOutcome::Gone {
            debug!(run = %run.run, "Redis no longer knows the run");
        }
        Ok(())
    }

    /// Redis holds other events under ids that are already stored: gives them new ids, and puts the
    /// run back into the ready queue.
    async fn rebirth(&self, run: &ReadyRun, state: &RunState) -> Result<(), PersistError> {
        let keys = self.keys.run(run.run);
        let durable = durable_seqs(state);
        let last: EventId = self
            .redis
            .run(keys.slot, async |connection| {
                scripts::rebirth(&keys, state.watermark, &durable, connection).await
            })
            .await?;
        self.metrics.count_rebirth();
        warn!(run = %run.run, watermark = %state.watermark, %last,
            "Redis lost stored events of the run and reused their ids; moved the run to a new epoch");
        Ok(())
    }
}

/// The highest stored seq of each producer.
fn durable_seqs(state: &RunState) -> Vec<(Uuid, u64)> {
    state
        .producers
        .iter()
        .map(|(producer, stored)| (*producer, stored.seq))
        .collect()
}
