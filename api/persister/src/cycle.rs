//! One cycle: read what some runs hold beyond their watermarks, store it in one transaction, let
//! Redis acknowledge and trim it.
//!
//! A cycle is repeated during an outage of Redis or Postgres, with a jittered backoff of at most 2
//! s. Any other failure is isolated: each run gets a cycle of its own, so that one run that cannot
//! be stored does not delay the others.
//!
//! Bounds: a cycle holds about twice [`crate::read_batch::BATCH_BYTES`] of entries, and the same
//! again as rows.

use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::announce::announce;
use crate::commit::commit;
use crate::error::PersistError;
use crate::metrics::Metrics;
use crate::read_batch::read_batch;
use crate::ready_entries::ReadyRun;
use crate::settle::Settler;
use runcast_store::Store;

/// What a cycle works with. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Cycle {
    pub(crate) redis: Redis,
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) settler: Settler,
    pub(crate) metrics: Metrics,
}

/// How a cycle ended.
#[derive(Debug)]
pub(crate) struct CycleOutcome {
    /// Runs that were tried, whether or not they could be stored.
    pub(crate) finished: Vec<Uuid>,
    /// Runs that the cycle did not reach, because its batch was full.
    pub(crate) left: Vec<ReadyRun>,
    /// There was more than fits in one batch.
    pub(crate) is_full: bool,
    /// The persister was stopped while Postgres or Redis was down.
    pub(crate) gave_up: bool,
}

/// How far an attempt at a cycle came.
#[derive(Debug, Clone, Copy)]
struct CycleProgress {
    /// How many of the runs, from the first on, were read.
    runs: usize,
    /// There was more than fits in one batch.
    is_full: bool,
}

impl Cycle {
    /// Stores what these runs hold, and says which of them are done.
    pub(crate) async fn run(
        self,
        mut runs: Vec<ReadyRun>,
        stop: CancellationToken,
    ) -> CycleOutcome {
        let progress = self.repeat(&runs, &stop).await;
        let left = progress.map_or_else(Vec::new, |progress| runs.split_off(progress.runs));
        CycleOutcome {
            finished: runs.into_iter().map(|run| run.run).collect(),
            left,
            is_full: progress.is_some_and(|progress| progress.is_full),
            gave_up: progress.is_none(),
        }
    }

    /// Repeats the cycle until it succeeds, or until the runs that cannot be stored are found.
    /// Returns nothing if `stop` comes during an outage.
    async fn repeat(&self, runs: &[ReadyRun], stop: &CancellationToken) -> Option<CycleProgress> {
        let mut backoff = Backoff::for_connections();
        loop {
            match self.attempt(runs).await {
                Ok(progress) => {
                    if backoff.attempts() > 0 {
                        info!(runs = runs.len(), "storing again");
                    }
                    return Some(progress);
                }
                Err(error) if let Some(outage) = error.outage() => {
                    if backoff.attempts() == 0 {
                        warn!(%error, runs = runs.len(), "cannot store; trying again");
                    } else {
                        debug!(%error, runs = runs.len(), "still cannot store");
                    }
                    let wait = backoff.next_wait();
                    self.metrics.count_outage(outage);
                    let waited = tokio::time::sleep(wait);
                    stop.run_until_cancelled(waited).await?;
                }
                Err(error) => {
                    self.isolate(runs, error).await;
                    return Some(CycleProgress {
                        runs: runs.len(),
                        is_full: false,
                    });
                }
            }
        }
    }

    /// Stores each run in a cycle of its own, and logs the ones that cannot be stored.
    async fn isolate(&self, runs: &[ReadyRun], error: PersistError) {
        if let [run] = runs {
            return self.settler.report_failed(run.run, &error);
        }
        for run in runs {
            if let Err(error) = self.attempt(std::slice::from_ref(run)).await {
                self.settler.report_failed(run.run, &error);
            }
        }
    }

    async fn attempt(&self, runs: &[ReadyRun]) -> Result<CycleProgress, PersistError> {
        // Read what the runs hold beyond their watermarks, as much as fits in a batch.
        let read = read_batch(&self.redis, &self.store, &self.keys, runs).await?;
        let progress = CycleProgress {
            runs: read.runs,
            is_full: read.is_full,
        };
        // Runs with nothing to store need no transaction.
        self.settler.settle_without_entries(&read).await?;
        if read.pending.is_empty() {
            return Ok(progress);
        }
        // Store the entries of all other runs in one transaction.
        let committed = commit(&self.store, &self.metrics, &read.pending).await?;
        // Only now may Redis acknowledge and trim them.
        self.settler
            .settle_committed(&runs[..read.runs], &read.pending, &committed.states)
            .await?;
        announce(&self.redis, &self.keys, &committed.updates).await;
        Ok(progress)
    }
}
