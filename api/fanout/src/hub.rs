//! The watched runs of one gateway, each with its tail.
//!
//! A tail starts with the first viewer of its run and leaves the hub when [`RunTail::follow`] ends.
//! The hub also starts the reads that viewers need beside the tail: pages from before the ring,
//! each read once for all viewers that need it, and the status with which a run ended.
//!
//! Data: one entry per watched run. Bounds: at most [`MAX_BACKFILL_READS`] reads from before the
//! ring at a time, over all runs. Time: a failed read is retried with backoff while the run has
//! viewers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_history::reader::{ReadLimit, Reader};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use uuid::Uuid;

use crate::feed::Feed;
use crate::frame::Encoder;
use crate::memory::{CHECK_INTERVAL, MemoryGuard, ShedSignal};
use crate::read_frames::{ReadBatch, read_frames};
use crate::tail::RunTail;
use crate::trim_heap::trim_heap;
use crate::wakeups::{NoticeSubscription, WakeupSubscriber};

/// Backfill reads at a time, over all runs: each may bring 8 MiB, and takes one of the connections
/// to Postgres.
const MAX_BACKFILL_READS: usize = 16;

/// The watched runs of one gateway.
#[derive(Debug)]
pub struct Hub {
    reader: Reader,
    wakeups: Arc<WakeupSubscriber>,
    feed: Arc<Feed>,
    memory: Arc<MemoryGuard>,
    false_wakeups: Counter,
    tails: Mutex<HashMap<Uuid, Arc<RunTail>>>,
    backfill_reads: Semaphore,
    tasks: TaskTracker,
    /// Viewers start reads from the writer threads, which belong to no runtime.
    runtime: Handle,
    stop: CancellationToken,
}

/// Keeps a tail running until it is dropped.
#[derive(Debug)]
pub struct TailHandle(Arc<RunTail>);

impl std::ops::Deref for TailHandle {
    type Target = RunTail;

    fn deref(&self) -> &RunTail {
        &self.0
    }
}

impl Drop for TailHandle {
    fn drop(&mut self) {
        self.0.remove_viewer();
    }
}

impl Hub {
    /// A hub without any watched run. Tails are spawned on `tasks` and end when `stop` is
    /// cancelled. `false_wakeups` counts wake-ups that announced what Redis does not hold.
    /// [`Hub::receive_wakeups`] must run for wake-ups to arrive. Must be called within a tokio
    /// runtime.
    pub fn new(
        redis: Redis,
        keys: Keys,
        reader: Reader,
        memory: Arc<MemoryGuard>,
        false_wakeups: Counter,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            wakeups: Arc::new(WakeupSubscriber::new(redis.clone(), keys.clone())),
            feed: Feed::new(redis, keys),
            reader,
            memory,
            false_wakeups,
            tails: Mutex::default(),
            backfill_reads: Semaphore::new(MAX_BACKFILL_READS),
            tasks,
            runtime: Handle::current(),
            stop,
        })
    }

    /// Passes wake-ups to the tails until the hub stops.
    pub async fn receive_wakeups(self: Arc<Self>) {
        self.wakeups.run(self.stop.clone()).await;
    }

    /// The feed of changes of all runs. [`Feed::run`] must run for updates to arrive.
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The reader of all runs.
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Checks the memory limit until the hub stops. While the process exceeds it, every run keeps
    /// the minimum, and each round closes some viewers. After a crowd of viewers has come, freed
    /// memory goes back to the system.
    pub async fn guard_memory(self: Arc<Self>) {
        let guarding = async {
            loop {
                sleep(CHECK_INTERVAL).await;
                if self.memory.should_trim_heap() {
                    let trimmed = tokio::task::spawn_blocking(trim_heap).await;
                    if let Err(Ok(panic)) = trimmed.map_err(JoinError::try_into_panic) {
                        std::panic::resume_unwind(panic);
                    }
                }
                if self.memory.check_limit() {
                    let max_bytes = self.memory.bytes_per_run();
                    let tails: Vec<_> = self.lock().values().cloned().collect();
                    for tail in tails {
                        tail.shrink_to(max_bytes);
                    }
                    self.memory.begin_shed_round();
                }
            }
        };
        self.stop.run_until_cancelled(guarding).await;
    }

    /// The rounds in which viewers are closed for want of memory, from now on.
    pub fn shedding(&self) -> ShedSignal {
        self.memory.shedding()
    }

    /// The memory limit of the process.
    pub const fn memory(&self) -> &Arc<MemoryGuard> {
        &self.memory
    }

    /// Cancelled when the gateway drains.
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Watches a run. Starts its tail if the run has no other viewer.
    pub fn watch(self: &Arc<Self>, run: Uuid) -> TailHandle {
        let mut tails = self.lock();
        let tail = tails.entry(run).or_insert_with(|| {
            let tail = Arc::new(RunTail::new(
                run,
                Arc::clone(&self.memory),
                self.false_wakeups.clone(),
            ));
            let (hub, task) = (Arc::clone(self), Arc::clone(&tail));
            self.tasks.spawn(async move { hub.follow(task).await });
            tail
        });
        tail.add_viewer();
        self.memory.count_viewer();
        let watch = TailHandle(Arc::clone(tail));
        self.memory.set_watched_runs(tails.len());
        watch
    }

    /// Notices to the agents of a run; none if `max` listen to them already.
    pub fn notices(&self, run: Uuid, max: usize) -> Option<NoticeSubscription> {
        self.wakeups.notices(run, max)
    }

    /// How many runs are watched.
    pub fn watched_runs(&self) -> usize {
        self.lock().len()
    }

    /// Runs a tail, and removes it once it has lingered without viewers.
    async fn follow(self: Arc<Self>, tail: Arc<RunTail>) {
        let run = tail.run_id();
        debug!(%run, "tail started");
        self.wakeups.subscribe(Arc::clone(&tail));
        loop {
            let followed = self
                .stop
                .run_until_cancelled(tail.follow(&self.reader))
                .await;
            let mut tails = self.lock();
            // A viewer may have come between the tail's last check and this lock.
            if followed.is_none() || !tail.is_watched() {
                tails.remove(&run);
                self.memory.set_watched_runs(tails.len());
                break;
            }
        }
        self.wakeups.unsubscribe(run);
        debug!(%run, "tail ended");
    }

    /// Starts a read from a cursor that lies before the ring, unless another viewer has started it.
    /// The tail notifies its viewers when the read ends.
    pub(crate) fn start_backfill(self: &Arc<Self>, watch: &TailHandle, cursor: EventId) {
        let Some(limit) = watch.begin_backfill(cursor) else {
            return;
        };
        let (hub, tail) = (Arc::clone(self), Arc::clone(&watch.0));
        let reading = async move {
            let read = hub
                .stop
                .run_until_cancelled(hub.read_backfill(&tail, cursor, limit))
                .await;
            match read.flatten() {
                Some(batch) if batch.frames.upto > cursor => {
                    tail.add_backfill(cursor, batch.frames, batch.status.entries);
                }
                // The run was deleted, or its events are stored under other ids: nothing is left up
                // to the beginning of the ring.
                Some(batch) if batch.status.ended => {
                    let mut empty = Encoder::new(cursor);
                    empty.skip_to(tail.last_id().unwrap_or(cursor));
                    tail.add_backfill(cursor, empty.finish(), 0);
                }
                _ => tail.end_backfill(cursor),
            }
        };
        self.tasks.spawn_on(reading, &self.runtime);
    }

    /// Reads until there is something, or the run has no viewer left.
    async fn read_backfill(
        &self,
        tail: &RunTail,
        cursor: EventId,
        limit: ReadLimit,
    ) -> Option<ReadBatch> {
        let mut backoff = Backoff::for_connections();
        while tail.is_watched() {
            let read = match self.backfill_reads.acquire().await {
                Ok(_permit) => read_frames(&self.reader, tail.run_id(), cursor, limit).await,
                Err(_closed) => return None,
            };
            match read {
                Ok(batch) if batch.frames.upto > cursor || batch.status.ended => {
                    return Some(batch);
                }
                Ok(_empty) => {}
                Err(error) => {
                    debug!(run = %tail.run_id(), %error, "cannot read older events; retrying");
                    tail.backfill_failed(&error);
                }
            }
            sleep(backoff.next_wait()).await;
        }
        None
    }

    /// Starts a query for how a run has ended, unless one is under way. The tail notifies its
    /// viewers when it is answered.
    pub(crate) fn load_end_status(self: &Arc<Self>, watch: &TailHandle) {
        if !watch.begin_end_status() {
            return;
        }
        let (hub, tail) = (Arc::clone(self), Arc::clone(&watch.0));
        let loading = async move {
            let status = hub.stop.run_until_cancelled(hub.end_status(tail.run_id()));
            tail.set_end_status(status.await);
        };
        self.tasks.spawn_on(loading, &self.runtime);
    }

    /// The data of the `end` frame of a run, as far as Postgres can say at this moment.
    async fn end_status(&self, run: Uuid) -> Value {
        match self.reader.run(run).await {
            Ok(Some(run)) => json!({
                "kind": "end", "status": run.status, "sealed": run.sealed, "events": run.events,
                "missing": run.variations.iter().filter_map(|one| one.missing).sum::<u64>(),
            }),
            Ok(None) => json!({"kind": "end", "status": "deleted"}),
            Err(error) => {
                debug!(%run, %error, "cannot read how the run ended; sending `end` without details");
                json!({"kind": "end"})
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<RunTail>>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
