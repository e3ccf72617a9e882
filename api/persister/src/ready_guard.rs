//! Keeps the ready queue free of what no script of ours has written.
//!
//! A publisher's Redis user may write to the ready streams. An entry that names no run of the
//! partition would be delivered again and again, a key of another type or an id that uses up all
//! others would stop the whole partition. The memory monitor checks every partition every few
//! seconds, and a consumer checks its own ones at once when Redis refuses to read them.
//!
//! Who removes entries may have removed wake-ups as well (`XADD` with `MAXLEN 0`). So after a
//! finding the runs of these partitions that have unstored events enter the queue again, at most
//! once in [`REQUEUE_INTERVAL`]: that goes through all keys by `SCAN`.
//!
//! Bounds: [`MAX_CALLS`] calls for a partition, [`MAX_CONCURRENT_CALLS`] in progress.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::log_limit::LogLimit;
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT};
use runcast_common::{key_scan, redis, scripts};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::metrics::Metrics;

/// Calls for one partition before others have their turn; each looks at a thousand entries.
const MAX_CALLS: usize = 50;

/// Calls in progress at the same time.
const MAX_CONCURRENT_CALLS: usize = 16;

/// Between two scans of all keys for runs that lost their wake-up.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time of one scan. What it did not reach waits for the next one.
const REQUEUE_DEADLINE: Duration = Duration::from_secs(10);

static REMOVED_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// Checks the ready streams. Clones share what they have found.
#[derive(Debug, Clone)]
pub(crate) struct ReadyGuard {
    redis: Redis,
    keys: Keys,
    metrics: Metrics,
    findings: Arc<Mutex<Findings>>,
}

#[derive(Debug, Default)]
struct Findings {
    /// Partitions in which wake-ups may be lost.
    partitions: HashSet<usize>,
    last_requeue: Option<Instant>,
}

impl ReadyGuard {
    pub(crate) fn new(redis: Redis, keys: Keys, metrics: Metrics) -> Self {
        Self {
            redis,
            keys,
            metrics,
            findings: Arc::default(),
        }
    }

    /// Checks all partitions. An outage ends it; another failure of one partition does not keep the
    /// others from being checked.
    pub(crate) async fn check_all(&self) -> Result<(), RedisFailure> {
        let checks = stream::iter(0..PARTITION_COUNT).map(|partition| self.check(partition));
        let checks: Vec<Result<(), RedisFailure>> = checks
            .buffer_unordered(MAX_CONCURRENT_CALLS)
            .collect()
            .await;
        for check in checks {
            match check {
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => debug!(%error, "cannot check a part of the ready queue"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Removes from the ready stream of a partition what is no entry of ours.
    pub(crate) async fn check(&self, partition: usize) -> Result<(), RedisFailure> {
        let ready = self.keys.ready(partition);
        let mut from = "-".to_owned();
        let mut removed = 0;
        for _ in 0..MAX_CALLS {
            let checked = self.redis.run(Keys::slot(partition), async |connection| {
                scripts::check_ready(&ready, partition, &from, connection).await
            });
            let checked = checked.await?;
            removed += checked.removed;
            // What is in order is left alone, so a queue in order is only looked at once.
            if checked.next.is_empty() || checked.removed == 0 {
                break;
            }
            from = checked.next;
        }
        if removed > 0 {
            self.metrics.count_ready_garbage(removed);
            self.lock().partitions.insert(partition);
            if let Some(removed) = REMOVED_LOG.admit(removed) {
                warn!(
                    removed,
                    key = ready,
                    "removed from the ready queue what Runcast has not written: a publisher writes \
                     to it, or another program uses this Redis"
                );
            }
        }
        Ok(())
    }

    /// Lets the runs of suspicious partitions that have unstored events enter the queue again, if
    /// that is due.
    pub(crate) async fn requeue_if_due(&self) -> Result<(), RedisFailure> {
        let partitions = {
            let mut findings = self.lock();
            let last = findings.last_requeue;
            let is_due = last.is_none_or(|last| last.elapsed() >= REQUEUE_INTERVAL);
            if findings.partitions.is_empty() || !is_due {
                return Ok(());
            }
            findings.last_requeue = Some(Instant::now());
            std::mem::take(&mut findings.partitions)
        };
        let mut requeued = 0_usize;
        let scan = self.requeue(&partitions, &mut requeued);
        let done = timeout(REQUEUE_DEADLINE, scan).await;
        if requeued > 0 {
            info!(
                runs = requeued,
                "queued runs again whose wake-ups may be lost"
            );
        }
        if !matches!(done, Ok(Ok(()))) {
            self.lock().partitions.extend(partitions);
        }
        done.unwrap_or(Ok(()))
    }

    async fn requeue(
        &self,
        partitions: &HashSet<usize>,
        requeued: &mut usize,
    ) -> Result<(), RedisFailure> {
        for server in self.redis.masters().await? {
            let mut from = 0;
            loop {
                let step = key_scan::step(&server, &self.keys, from).await?;
                let runs = step.runs.into_iter();
                let runs = runs.filter(|run| partitions.contains(&Keys::partition(*run)));
                let done: Vec<bool> = stream::iter(runs)
                    .map(|run| self.requeue_run(run))
                    .buffer_unordered(MAX_CONCURRENT_CALLS)
                    .try_collect()
                    .await?;
                *requeued += done.into_iter().filter(|is_queued| *is_queued).count();
                from = step.next;
                if from == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Queues a run that has unstored events; returns whether it did.
    async fn requeue_run(&self, run: Uuid) -> Result<bool, RedisFailure> {
        let keys = self.keys.run(run);
        let mut exists = redis::cmd("HEXISTS");
        exists.arg(&keys.meta).arg("dirty");
        match self.redis.query::<bool>(keys.slot, &exists).await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.is_outage() => return Err(error),
            // The meta of this run is of another type.
            Err(_) => return Ok(false),
        }
        let queued = self.redis.run(keys.slot, async |connection| {
            scripts::request_repair(&keys, connection).await
        });
        queued.await?;
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
