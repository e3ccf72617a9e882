//! One cycle: read what some runs hold beyond their watermarks, write it in one transaction, tell Redis.
//!
//! Reads, and afterwards the tellings, of many runs go over one connection without waiting for each
//! other. Reading ends once [`BATCH_BYTES`] or [`BATCH_ROWS`] have come together; the runs that it did not
//! come to are given back. With [`READS`] reads of [`RUN_BYTES`] under way at that moment, a cycle holds
//! about twice [`BATCH_BYTES`], and the same again as rows.

use std::collections::HashMap;

use futures::future::try_join_all;
use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::{self, Settle, Settled, Window};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::announce;
use super::build_batch;
use super::memory_budget::MemoryPressure;
use super::metrics::{CommitStats, Metrics};
use super::read_run::{self, PendingEntries, ReadOutcome};
use super::ready_queue::ReadyRun;
use crate::error::PersistError;
use runcast_store::Store;
use runcast_store::ingest::{IngestBatch, Ingested, RunState};

/// Body bytes after which a transaction takes no further run: large enough to make its fixed cost small,
/// small enough to be committed in a tenth of a second or two.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The same in events, for short ones.
const BATCH_ROWS: u64 = 32 * 1024;

/// Runs that are read at the same time.
const READS: usize = 16;

/// Body bytes that one run may store in a turn while others wait; alone it may fill the batch.
const RUN_BYTES: usize = 512 * 1024;

/// What a cycle has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct CycleProgress {
    /// So many of its runs, from the first on, have had their turn.
    pub(super) runs: usize,
    /// There was more than fits in.
    pub(super) is_full: bool,
}

impl CycleProgress {
    const fn all(runs: &[ReadyRun]) -> Self {
        Self {
            runs: runs.len(),
            is_full: false,
        }
    }
}

/// What cycles work with.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    pub(super) redis: Redis,
    pub(super) store: Store,
    pub(super) keys: Keys,
    pub(super) window: Window,
    pub(super) pressure: MemoryPressure,
    pub(super) meter: Metrics,
}

impl Cycle {
    /// Repeats a cycle until it succeeds, an outage is over, or its one bad run is found. Answers nothing if told to
    /// stop in an outage.
    pub(super) async fn persevere(
        &self,
        runs: &[ReadyRun],
        stop: &CancellationToken,
    ) -> Option<CycleProgress> {
        let mut backoff = Backoff::for_connections();
        loop {
            match self.once(runs).await {
                Ok(done) => {
                    if backoff.attempts() > 0 {
                        info!(runs = runs.len(), "storing again");
                    }
                    return Some(done);
                }
                Err(error) if error.is_outage() => {
                    if backoff.attempts() == 0 {
                        warn!(%error, runs = runs.len(), "cannot store; trying again");
                    } else {
                        debug!(%error, runs = runs.len(), "still cannot store");
                    }
                    let wait = backoff.next_wait();
                    self.meter.outage();
                    let waited = tokio::time::sleep(wait);
                    stop.run_until_cancelled(waited).await?;
                }
                // One run that cannot be stored must not hold up the others.
                Err(_) if runs.len() > 1 => {
                    for run in runs {
                        if let Err(error) = self.once(std::slice::from_ref(run)).await {
                            error!(%error, run = %run.run, "cannot store this run; it stays in line");
                        }
                    }
                    return Some(CycleProgress::all(runs));
                }
                Err(error) => {
                    for run in runs {
                        error!(%error, run = %run.run, "cannot store this run; it stays in line");
                    }
                    return Some(CycleProgress::all(runs));
                }
            }
        }
    }

    async fn once(&self, runs: &[ReadyRun]) -> Result<CycleProgress, PersistError> {
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let states = self.store.watermarks(&ids).await?;
        let share = (BATCH_BYTES / runs.len().max(1)).max(RUN_BYTES);
        let (mut turns, mut done) = (Vec::new(), 0);
        let (mut bytes, mut rows, mut is_full) = (0, 0, false);
        for group in runs.chunks(READS) {
            let reads = group
                .iter()
                .map(|run| self.turn(run, states.get(&run.run), share));
            for (run, turn) in group.iter().zip(try_join_all(reads).await?) {
                if let Some(turn) = turn {
                    bytes += turn.bytes();
                    rows += turn.events();
                    turns.push((run, turn));
                }
            }
            done += group.len();
            is_full = bytes >= BATCH_BYTES || rows >= BATCH_ROWS;
            if is_full {
                break;
            }
        }
        if !turns.is_empty() {
            self.write(&turns).await?;
        }
        Ok(CycleProgress {
            runs: done,
            is_full,
        })
    }

    /// What a run has to store; where that is nothing, Redis is told so here.
    async fn turn(
        &self,
        run: &ReadyRun,
        state: Option<&RunState>,
        share: usize,
    ) -> Result<Option<PendingEntries>, PersistError> {
        let Some(state) = state else {
            warn!(run = %run.run, "a stream of a run that does not exist is left alone");
            self.settle(run, &RunState::default(), &[]).await?;
            return Ok(None);
        };
        let found = read_run::read(&self.redis, &self.keys.run(run.run), state, share).await?;
        match found {
            ReadOutcome::Events(items) => {
                return Ok(Some(PendingEntries {
                    run: run.run,
                    from: state.watermark,
                    items,
                }));
            }
            ReadOutcome::Nothing | ReadOutcome::WentBack => {}
        }
        // Rare, and only here what is known of producers matters before the lock.
        let mut states = self.store.run_states(&[run.run]).await?;
        let now = states.remove(&run.run).unwrap_or_default();
        match found {
            ReadOutcome::WentBack if now.watermark == state.watermark => {
                self.rebirth(run, &now).await?;
            }
            // If somebody else has stored more meanwhile, this sends the run to the back of the line.
            _ => self.settle(run, &now, &durable(&now)).await?,
        }
        Ok(None)
    }

    async fn write(&self, turns: &[(&ReadyRun, PendingEntries)]) -> Result<(), PersistError> {
        let ids: Vec<Uuid> = turns.iter().map(|(run, _)| run.run).collect();
        let mut stored: HashMap<Uuid, RunState> = HashMap::with_capacity(turns.len());
        let mut tally = CommitStats::default();
        let begun = Instant::now();
        // What to write follows from the states of the runs once they are locked.
        let transaction = self.store.begin_ingest(&ids).await?;
        let mut batch = IngestBatch::default();
        for (_, turn) in turns {
            if let Some(state) = transaction.states().get(&turn.run) {
                let built = build_batch::build(turn, state, &mut batch);
                tally.replays += built.replays;
                stored.insert(turn.run, built.state);
            }
        }
        tally.rows = batch.rows.rows();
        tally.bytes = batch.rows.bytes();
        tally.dead_letters = batch.dead_letters.len() as u64;
        debug!(runs = stored.len(), rows = tally.rows, "storing");
        let Ingested { ended, updates } = transaction.commit(batch).await?;
        tally.took = begun.elapsed();
        tally.oldest_ms = turns.iter().filter_map(|(_, turn)| turn.oldest_ms()).min();
        self.meter.committed(&tally);
        let settles = turns.iter().filter_map(|(run, _)| {
            let mut state = stored.remove(&run.run)?;
            if let Some(ended) = ended.get(&run.run) {
                state.ended.clone_from(ended);
            }
            Some(async move {
                let producers = durable(&state);
                self.settle(run, &state, &producers).await
            })
        });
        try_join_all(settles).await?;
        announce::tell(&self.redis, &self.keys, &updates).await;
        Ok(())
    }

    async fn settle(
        &self,
        run: &ReadyRun,
        state: &RunState,
        durable: &[(Uuid, u64)],
    ) -> Result<(), PersistError> {
        let settle = Settle {
            watermark: state.watermark,
            sealed: state.ended.as_deref(),
            ready_ids: &run.ready_ids,
            durable,
            window: self.pressure.fit(self.window),
        };
        let keys = self.keys.run(run.run);
        let settled = self
            .redis
            .run(keys.slot, async |connection| {
                settle.call(&keys, connection).await
            })
            .await?;
        if settled == Settled::Gone {
            debug!(run = %run.run, "Redis no longer knows the run");
        }
        Ok(())
    }

    /// Redis holds other events under ids that are taken: they get new ids, and another turn.
    async fn rebirth(&self, run: &ReadyRun, state: &RunState) -> Result<(), PersistError> {
        let keys = self.keys.run(run.run);
        let producers = durable(state);
        let last: EventId = self
            .redis
            .run(keys.slot, async |connection| {
                scripts::rebirth(&keys, state.watermark, &producers, connection).await
            })
            .await?;
        self.meter.reborn();
        warn!(run = %run.run, watermark = %state.watermark, %last, "Redis went back in time; the run is reborn");
        Ok(())
    }
}

fn durable(state: &RunState) -> Vec<(Uuid, u64)> {
    state
        .producers
        .iter()
        .map(|(producer, known)| (*producer, known.seq))
        .collect()
}
