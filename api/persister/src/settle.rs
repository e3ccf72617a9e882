//! Tells Redis what Postgres holds of a run, by `settle.lua`: it acknowledges the ready entries,
//! trims the stream to the live window, and wakes viewers and producers.
//!
//! While Redis exceeds its memory budget, the live window is smaller ([`MemoryPressure`]). A run
//! that settles with more behind its watermark goes to the back of the ready queue.
//!
//! A run that Postgres does not know leaves the queue at the first look: its stream stays as it is,
//! and if more is appended, it is looked at again after some seconds.
//!
//! A run whose stream diverged from Postgres is reborn instead (`rebirth.lua`): its events get new
//! ids in a larger epoch, and a later cycle stores them. A run with keys or ids that no script of
//! ours has written is repaired (`repair.lua`). Either happens to a run at most once in
//! [`REPAIR_INTERVAL`], so that a publisher who does damage all the time keeps no persister busy:
//! until then its ready entries stay pending, and are claimed again.
//!
//! Of a deleted run nothing is stored: what its agents have published since is removed, which also
//! acknowledges it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use runcast_common::connect::Redis;
use runcast_common::log_limit::LogLimit;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, PERSISTER_GROUP};
use runcast_common::redis::{cmd, pipe};
use runcast_common::run_deletion;
use runcast_common::scripts::{self, LiveWindow, Settle, SettleOutcome};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::error::PersistError;
use crate::memory_budget::MemoryPressure;
use crate::metrics::Metrics;
use crate::read_batch::BatchRead;
use crate::read_run::PendingEntries;
use crate::ready_entries::ReadyRun;
use runcast_store::Store;
use runcast_store::run_states::RunState;

/// Shortest time between two repairs of one run.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

/// Runs whose last repair is remembered. Beyond them a run may be repaired sooner.
const MAX_REPAIRS: usize = 10_000;

static UNKNOWN_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));
static FAILED_LOG: LogLimit = LogLimit::new(Duration::from_secs(10));
static REPAIR_LOG: LogLimit = LogLimit::new(Duration::from_secs(10));

/// Settles runs. Cloning is cheap; clones share the times of repairs.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    redis: Redis,
    store: Store,
    keys: Keys,
    window: LiveWindow,
    pressure: MemoryPressure,
    metrics: Metrics,
    /// When each run was repaired last.
    repairs: Arc<Mutex<HashMap<Uuid, Instant>>>,
}

impl Settler {
    pub(crate) fn new(
        redis: Redis,
        store: Store,
        keys: Keys,
        window: LiveWindow,
        pressure: MemoryPressure,
        metrics: Metrics,
    ) -> Self {
        Self {
            redis,
            store,
            keys,
            window,
            pressure,
            metrics,
            repairs: Arc::default(),
        }
    }

    /// Settles the runs that have nothing to store, gives diverged runs a larger epoch, and repairs
    /// those that cannot be read.
    pub(crate) async fn settle_without_entries(
        &self,
        read: &BatchRead<'_>,
    ) -> Result<(), PersistError> {
        self.settle_unknown(&read.unknown).await?;
        for (run, watermark, error) in &read.unreadable {
            self.report_failed(run.run, error);
            self.repair(run.run, *watermark).await?;
        }

        self.settle_up_to_date(&read.up_to_date).await?;
        self.rebirth_diverged(&read.diverged).await
    }

    /// Rare: a persister that died may have stored what it did not settle.
    async fn settle_up_to_date(&self, runs: &[&ReadyRun]) -> Result<(), PersistError> {
        if runs.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let states = self.store.newest_run_states(&ids).await?;
        let settles = runs.iter().map(async |run| {
            let state = states.get(&run.run).cloned().unwrap_or_default();
            self.settle(run, &state).await?;
            // A run that was queued with nothing to store may be one that cannot append.
            self.repair(run.run, state.watermark).await
        });
        try_join_all(settles).await.map(drop)
    }

    /// Rare as well: all producers have to be told how far they are stored.
    async fn rebirth_diverged(&self, runs: &[(&ReadyRun, EventId)]) -> Result<(), PersistError> {
        if runs.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = runs.iter().map(|(run, _)| run.run).collect();
        let states = self.store.run_states(&ids).await?;
        let rebirths = runs.iter().map(async |(run, compared)| {
            let state = states.get(&run.run).cloned().unwrap_or_default();
            if state.watermark == *compared {
                self.rebirth(run, &state).await
            } else {
                // Another persister has stored more meanwhile: the run goes to the back of the
                // queue.
                self.settle(run, &state).await
            }
        });
        try_join_all(rebirths).await.map(drop)
    }

    /// Settles the runs that Postgres does not know. What an agent wrote to a deleted run leaves
    /// Redis, and the agent is refused from then on.
    async fn settle_unknown(&self, runs: &[&ReadyRun]) -> Result<(), PersistError> {
        if runs.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let deleted = self.store.deleted_among(&ids).await?;
        let (deleted, unknown): (Vec<&ReadyRun>, Vec<&ReadyRun>) =
            runs.iter().partition(|run| deleted.contains(&run.run));
        let removals = deleted.iter().map(async |run| {
            let (redis, keys) = (&self.redis, &self.keys);
            let removed =
                run_deletion::remove_keys(redis, keys, run.run, &run.ready_ids, &[]).await;
            info!(run = %run.run, "removing what was published to a deleted run");
            self.unless_failed(run.run, removed.map_err(Into::into))
        });
        try_join_all(removals).await?;
        self.dismiss_unknown(&unknown).await
    }

    /// Settles the runs that a transaction has stored, and repairs those in which the read has
    /// found damage. An entry so large that each read of it would cost Redis much is deleted:
    /// Postgres has a gap in its place, and its beginning as a dead letter.
    pub(crate) async fn settle_committed(
        &self,
        runs: &[ReadyRun],
        pending: &[PendingEntries],
        states: &HashMap<Uuid, RunState>,
    ) -> Result<(), PersistError> {
        let settles = runs
            .iter()
            .filter_map(|run| Some(self.settle(run, states.get(&run.run)?)));
        try_join_all(settles).await?;
        for damaged in pending {
            let Some(state) = states.get(&damaged.run) else {
                continue;
            };
            if damaged.foreign.is_some() || damaged.lost_upto.is_some() {
                self.repair(damaged.run, state.watermark).await?;
            }
            self.delete_oversized(damaged, state.watermark).await?;
        }
        Ok(())
    }

    /// Deletes stored entries that are larger than any publisher writes.
    async fn delete_oversized(
        &self,
        stored: &PendingEntries,
        watermark: EventId,
    ) -> Result<(), PersistError> {
        let unreadable = stored
            .entries
            .iter()
            .filter_map(|entry| entry.as_ref().err());
        let oversized: Vec<String> = unreadable
            .filter(|entry| entry.is_oversized && entry.id <= watermark)
            .map(|entry| entry.id.to_string())
            .collect();
        if oversized.is_empty() {
            return Ok(());
        }
        let keys = self.keys.run(stored.run);
        let mut delete = cmd("XDEL");
        delete.arg(&keys.stream).arg(&oversized);
        let deleted = self.redis.query::<u64>(keys.slot, &delete).await;
        self.unless_failed(stored.run, deleted.map(drop).map_err(Into::into))
    }

    /// Takes the ready entries of runs that Postgres does not know out of the queue.
    async fn dismiss_unknown(&self, unknown: &[&ReadyRun]) -> Result<(), PersistError> {
        let Some(first) = unknown.first() else {
            return Ok(());
        };
        let count = unknown.len() as u64;
        self.metrics.count_unknown_runs(count);
        if let Some(runs) = UNKNOWN_LOG.admit(count) {
            warn!(runs, run = %first.run,
                "Postgres does not know this run; leaving its stream alone");
        }
        let dismissals = unknown.iter().map(async |run| {
            let keys = self.keys.run(run.run);
            let mut pipeline = pipe();
            for command in ["XACK", "XDEL"] {
                let acknowledge = pipeline.cmd(command).arg(&keys.ready);
                if command == "XACK" {
                    acknowledge.arg(PERSISTER_GROUP);
                }
                acknowledge.arg(&run.ready_ids).ignore();
            }
            let pipeline = &pipeline;
            let done = self.redis.run(keys.slot, async |connection| {
                pipeline.exec_async(connection).await
            });
            self.unless_failed(run.run, done.await.map_err(Into::into))
        });
        try_join_all(dismissals).await.map(drop)
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
            .await;
        match settled {
            Ok(SettleOutcome::Gone) => debug!(run = %run.run, "Redis no longer knows the run"),
            Ok(SettleOutcome::Clean | SettleOutcome::More) => {}
            Err(error) => {
                self.unless_failed(run.run, Err(error.into()))?;
                self.repair(run.run, state.watermark).await?;
            }
        }
        Ok(())
    }

    /// Redis holds other events under ids that are already stored, or does not say how far the run
    /// has come: gives the events new ids, and puts the run back into the ready queue.
    async fn rebirth(&self, run: &ReadyRun, state: &RunState) -> Result<(), PersistError> {
        if !self.may_repair(run.run) {
            return Ok(());
        }
        let keys = self.keys.run(run.run);
        let durable = durable_seqs(state);
        let reborn = self
            .redis
            .run(keys.slot, async |connection| {
                scripts::rebirth(&keys, state.watermark, &durable, connection).await
            })
            .await;
        let last: EventId = match reborn {
            Ok(last) => last,
            Err(error) => return self.unless_failed(run.run, Err(error.into())),
        };
        self.metrics.count_rebirth();
        warn!(run = %run.run, watermark = %state.watermark, %last,
            "Redis does not continue what is stored of the run: it lost events, or a publisher changed \
             its keys; moved the run to a new epoch");
        Ok(())
    }

    /// Removes from a run in Redis what no script of ours has written.
    async fn repair(&self, run: Uuid, watermark: EventId) -> Result<(), PersistError> {
        let keys = self.keys.run(run);
        let repaired = self.redis.run(keys.slot, async |connection| {
            scripts::repair(&keys, watermark, connection).await
        });
        let repaired = match repaired.await {
            Ok(repaired) => repaired,
            Err(error) => return self.unless_failed(run, Err(error.into())),
        };
        if repaired.wrong_keys > 0 {
            // It could not be read until now.
            let queued = self.redis.run(keys.slot, async |connection| {
                scripts::request_repair(&keys, connection).await
            });
            self.unless_failed(run, queued.await.map_err(Into::into))?;
        }
        if repaired.wrong_keys > 0 || repaired.has_removed_stream {
            self.metrics.count_repair();
            if let Some(runs) = REPAIR_LOG.admit(1) {
                warn!(%run, runs, wrong_keys = repaired.wrong_keys, stream = repaired.has_removed_stream,
                    "removed keys of the run that Runcast has not written: its publisher writes to \
                     Redis by itself");
            }
        }
        Ok(())
    }

    /// Whether the run was not repaired within [`REPAIR_INTERVAL`]; then that counts as done now.
    fn may_repair(&self, run: Uuid) -> bool {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        if repairs.len() >= MAX_REPAIRS {
            repairs.retain(|_, at| at.elapsed() < REPAIR_INTERVAL);
        }
        match repairs.get(&run) {
            Some(at) if at.elapsed() < REPAIR_INTERVAL => false,
            _ => {
                if repairs.len() < MAX_REPAIRS {
                    repairs.insert(run, Instant::now());
                }
                true
            }
        }
    }

    /// An outage is an error. What failed because of the run alone is counted and logged: other
    /// runs go on.
    fn unless_failed(
        &self,
        run: Uuid,
        result: Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        match result {
            Err(error) if !error.is_outage() => {
                self.report_failed(run, &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Counts and logs that a run cannot be stored although all servers answer.
    pub(crate) fn report_failed(&self, run: Uuid, error: &PersistError) {
        self.metrics.count_failed_run();
        if let Some(failures) = FAILED_LOG.admit(1) {
            error!(%error, %run, failures, "cannot store this run; it stays in the ready queue");
        }
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
