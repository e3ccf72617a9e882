//! The persister: what stands in run streams goes into Postgres, each event exactly once.
//!
//! A cycle: take ready runs from the line ([`ready`]), read what they hold beyond their watermarks
//! ([`turn`]), decide what to write ([`rows`]) and write it for all of them in one transaction
//! ([`crate::store::ingest`]), then tell Redis, which acknowledges, trims and wakes viewers and
//! producers (`settle.lua`).
//!
//! Any number of persisters may run. The line spreads work and a dead one's runs are taken over; if
//! two work on one run all the same, the watermark under lock lets one of them win and the other
//! find nothing to do. Nothing is acknowledged or trimmed before its transaction is committed.
//!
//! Bounds: [`ready::BATCH_RUNS`] runs and [`turn::RUN_BYTES`] per run in a cycle, [`CYCLES`] cycles at a
//! time where a cluster makes several lines. While Postgres or Redis is down the cycle is repeated with a
//! jittered backoff of at most 2 s; the lines of other nodes go on meanwhile.

pub mod ready;
pub mod rows;
pub mod turn;

use std::collections::HashMap;

use futures::future::join_all;
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::id::EventId;
use runcast_common::keys::Keys;
use runcast_common::script::{self, Settle, Settled, Window};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::store::ingest::{Batch, RunState};
use crate::store::{Store, StoreError};
use ready::{Line, ReadyRun};
use turn::{Finding, Turn};

/// Cycles that may run at once: each holds a connection to Postgres, of which a process has 16.
const CYCLES: usize = 4;

/// What a cycle can fail with.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// Redis answered a stream read in another shape.
    #[error(transparent)]
    NotEntries(#[from] runcast_common::entry::NotEntries),
}

impl PersistError {
    fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Redis(error) => error.is_outage(),
            Self::NotEntries(_) => false,
        }
    }
}

/// Stores what producers append.
#[derive(Debug)]
pub struct Persister {
    redis: Redis,
    store: Store,
    keys: Keys,
    window: Window,
    cycles: Semaphore,
}

impl Persister {
    /// A persister between this Redis and this Postgres, which leaves `window` to viewers.
    #[must_use]
    pub const fn new(redis: Redis, store: Store, keys: Keys, window: Window) -> Self {
        Self {
            redis,
            store,
            keys,
            window,
            cycles: Semaphore::const_new(CYCLES),
        }
    }

    /// Works until told to stop; a cycle that has begun is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let lines = Line::all(&self.redis, &self.keys);
        join_all(lines.into_iter().map(|line| self.attend(line, &stop))).await;
    }

    async fn attend(&self, mut line: Line, stop: &CancellationToken) {
        let mut backoff = Backoff::for_connections();
        while let Some(taken) = stop.run_until_cancelled(line.take()).await {
            match taken {
                Ok(runs) => {
                    backoff.reset();
                    for batch in runs.chunks(ready::BATCH_RUNS) {
                        self.persevere(batch, stop).await;
                    }
                }
                Err(error) => {
                    if backoff.attempts() == 0 {
                        warn!(%error, "cannot take ready runs; trying again");
                    } else {
                        debug!(%error, "still cannot take ready runs");
                    }
                    let wait = backoff.next_wait();
                    if stop
                        .run_until_cancelled(tokio::time::sleep(wait))
                        .await
                        .is_none()
                    {
                        break;
                    }
                }
            }
        }
        line.leave().await;
    }

    /// Repeats a cycle until it succeeds, an outage is over, or its one bad run is found.
    async fn persevere(&self, runs: &[ReadyRun], stop: &CancellationToken) {
        let mut backoff = Backoff::for_connections();
        loop {
            match self.cycle(runs).await {
                Ok(()) => {
                    if backoff.attempts() > 0 {
                        info!(runs = runs.len(), "storing again");
                    }
                    return;
                }
                Err(error) if error.is_outage() => {
                    let wait = backoff.next_wait();
                    warn!(%error, ?wait, runs = runs.len(), "cannot store; trying again");
                    if stop
                        .run_until_cancelled(tokio::time::sleep(wait))
                        .await
                        .is_none()
                    {
                        return;
                    }
                }
                // One run that cannot be stored must not hold up the others.
                Err(_) if runs.len() > 1 => {
                    for run in runs {
                        if let Err(error) = self.cycle(std::slice::from_ref(run)).await {
                            error!(%error, run = %run.run, "cannot store this run; it stays in line");
                        }
                    }
                    return;
                }
                Err(error) => {
                    for run in runs {
                        error!(%error, run = %run.run, "cannot store this run; it stays in line");
                    }
                    return;
                }
            }
        }
    }

    async fn cycle(&self, runs: &[ReadyRun]) -> Result<(), PersistError> {
        // It is never closed; without a permit there would just be more at once.
        let _permit = self.cycles.acquire().await.ok();
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let states = self.store.run_states(&ids).await?;
        let mut turns = Vec::with_capacity(runs.len());
        for run in runs {
            let Some(state) = states.get(&run.run) else {
                warn!(run = %run.run, "a stream of a run that does not exist is left alone");
                self.settle(run, &RunState::default(), &[]).await?;
                continue;
            };
            match turn::read(&self.redis, &self.keys.run(run.run), state).await? {
                Finding::Events(items) => turns.push((
                    run,
                    Turn {
                        run: run.run,
                        from: state.watermark,
                        items,
                    },
                )),
                Finding::Nothing => self.settle(run, state, &durable(state)).await?,
                Finding::WentBack => self.rebirth(run, state).await?,
            }
        }
        let ids: Vec<Uuid> = turns.iter().map(|(run, _)| run.run).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut stored: HashMap<Uuid, RunState> = HashMap::new();
        let ended = self
            .store
            .ingest(&ids, |locked| {
                let mut batch = Batch::default();
                for (_, turn) in &turns {
                    if let Some(state) = locked.get(&turn.run) {
                        let after = rows::build(turn, state, &mut batch);
                        stored.insert(turn.run, after);
                    }
                }
                debug!(runs = stored.len(), rows = batch.rows.rows(), "storing");
                batch
            })
            .await?;
        for (run, _) in turns {
            let Some(state) = stored.get_mut(&run.run) else {
                continue;
            };
            if let Some(ended) = ended.get(&run.run) {
                state.ended.clone_from(ended);
            }
            let producers = durable(state);
            self.settle(run, state, &producers).await?;
        }
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
            window: self.window,
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
                script::rebirth(&keys, state.watermark, &producers, connection).await
            })
            .await?;
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
