//! Fan-out: from one run stream to however many viewers.
//!
//! ```text
//! Redis stream --\                     /--> viewer: a cursor and a socket
//!                 reader -> tail -> ring ---> viewer
//! Postgres ------/          (one per run) \--> viewer
//! ```
//!
//! - [`reader`] reads a run from wherever it is held, without a seam.
//! - [`tail`] reads on for a watched run and fills its [`ring`] with [`frame`]s, encoded once; `older` holds pages from
//!   before the ring, for viewers who are behind it; [`memory`] bounds both over all runs.
//! - [`viewer`] is a cursor, and says what comes next for it.
//! - [`delivery`] writes to the sockets of all viewers; [`bytes`] is for those whose connection is more than a socket.
//! - [`many`] follows several runs on one connection, with a cursor for each, [`cursors`].
//! - [`feed`] tells of all runs what changes about them.
//! - [`bell`] wakes tails, and hears the signs of life of agents, `pulses`, and what changes about a run without being
//!   an event of it, `states`.
//!
//! There is no queue per viewer: a slow one only keeps a cursor, and what it has not taken yet waits
//! in Redis or Postgres.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use uuid::Uuid;

use crate::feed::Feed;
use crate::memory::{MemoryGuard, ShedSignal};
use crate::read_frames::{ReadBatch, read_frames};
use crate::tail::RunTail;
use crate::wakeups::WakeupSubscriber;
use runcast_history::History;
use runcast_history::reader::{ReadLimit, Reader};
use runcast_store::Store;

/// Reads of what is older at a time, over all runs: each may bring 8 MiB, and takes one of the connections to Postgres.
const READS: usize = 16;

/// The watched runs of one gateway.
#[derive(Debug)]
pub struct Hub {
    reader: Reader,
    bells: WakeupSubscriber,
    feed: Arc<Feed>,
    memory: Arc<MemoryGuard>,
    tails: Mutex<HashMap<Uuid, Arc<RunTail>>>,
    reads: Semaphore,
    tasks: TaskTracker,
    /// Viewers ask from threads of their own.
    runtime: Handle,
    stop: CancellationToken,
}

/// A viewer's hold on a tail, which stays for as long as anybody holds it.
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
        self.0.depart();
    }
}

impl Hub {
    /// A hub without any watched run. Tails are spawned on `tasks` and end when `stop` is cancelled;
    /// [`Hub::ring_bells`] must run for them to be woken at once. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(
        redis: Redis,
        store: Store,
        history: History,
        keys: Keys,
        memory: Arc<MemoryGuard>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            bells: WakeupSubscriber::new(redis.clone(), keys.clone()),
            feed: Feed::new(redis.clone(), keys.clone()),
            reader: Reader::new(redis, store, history, keys),
            memory,
            tails: Mutex::default(),
            reads: Semaphore::new(READS),
            tasks,
            runtime: Handle::current(),
            stop,
        })
    }

    /// Passes bells on to tails until the hub stops.
    pub async fn ring_bells(self: Arc<Self>) {
        self.bells.run(self.stop.clone()).await;
    }

    /// What changes about all runs. It must run for anything to come.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Reads runs from wherever they are held.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Looks whether the process is over its memory limit, until the hub stops; while it is, every run keeps the least,
    /// and in each round some viewers have to go. Once many have come, what that took goes back to the system.
    pub async fn guard_memory(self: Arc<Self>) {
        let guarding = async {
            loop {
                sleep(crate::memory::LOOK_EVERY).await;
                if self.memory.has_left_over() {
                    let given = tokio::task::spawn_blocking(crate::trim_heap::give_back).await;
                    if let Err(Ok(panic)) = given.map_err(JoinError::try_into_panic) {
                        std::panic::resume_unwind(panic);
                    }
                }
                if self.memory.is_over() {
                    let share = self.memory.share();
                    let tails: Vec<_> = self.lock().values().cloned().collect();
                    for tail in tails {
                        tail.shrink_to(share);
                    }
                    self.memory.begin_round();
                }
            }
        };
        self.stop.run_until_cancelled(guarding).await;
    }

    /// The rounds in which viewers have to go, from now on.
    #[must_use]
    pub fn shedding(&self) -> ShedSignal {
        self.memory.shedding()
    }

    /// What the process may have.
    #[must_use]
    pub const fn memory(&self) -> &Arc<MemoryGuard> {
        &self.memory
    }

    /// Reads on from a cursor that lies before the ring, unless that is under way or as much is; the tail tells when
    /// there is something.
    pub(super) fn read_older(self: &Arc<Self>, watch: &TailHandle, cursor: EventId) {
        let Some(step) = watch.begin_older(cursor) else {
            return;
        };
        let (hub, tail) = (Arc::clone(self), Arc::clone(&watch.0));
        let reading = async move {
            let read = hub
                .stop
                .run_until_cancelled(hub.older(&tail, cursor, step))
                .await;
            match read.flatten() {
                Some(piece) if piece.frames.upto > cursor => {
                    tail.older(cursor, piece.frames, piece.status.entries);
                }
                // Deleted, or stored under other ids: there is nothing up to where the ring begins.
                Some(piece) if piece.status.ended => {
                    let mut nothing = crate::frame::Encoder::new(cursor);
                    nothing.skip_to(tail.newest().unwrap_or(cursor));
                    tail.older(cursor, nothing.finish(), 0);
                }
                _ => tail.nothing_older(cursor),
            }
        };
        self.tasks.spawn_on(reading, &self.runtime);
    }

    /// Reads until there is something, or nobody watches any more.
    async fn older(&self, tail: &RunTail, cursor: EventId, step: ReadLimit) -> Option<ReadBatch> {
        let mut backoff = Backoff::for_connections();
        while tail.is_watched() {
            let read = match self.reads.acquire().await {
                Ok(_permit) => read_frames(&self.reader, tail.run_id(), cursor, step).await,
                Err(_closed) => return None,
            };
            match read {
                Ok(piece) if piece.frames.upto > cursor || piece.status.ended => {
                    return Some(piece);
                }
                Ok(_nothing) => {}
                Err(error) => {
                    debug!(run = %tail.run_id(), %error, "what is older cannot be read");
                    tail.older_fails(&error);
                }
            }
            sleep(backoff.next_wait()).await;
        }
        None
    }

    /// Asks how a run has ended, unless that is under way; the tail tells when it is known.
    pub(super) fn ask_end(self: &Arc<Self>, watch: &TailHandle) {
        if !watch.begin_end() {
            return;
        }
        let (hub, tail) = (Arc::clone(self), Arc::clone(&watch.0));
        let asking = async move {
            let asked = hub.stop.run_until_cancelled(hub.reader.run(tail.run_id()));
            let end = asked.await.map(|run| match run {
                Ok(Some(run)) => json!({
                    "kind": "end", "status": run.status, "sealed": run.sealed, "events": run.events,
                    "missing": run.variations.iter().filter_map(|one| one.missing).sum::<u64>(),
                }),
                Ok(None) => json!({"kind": "end", "status": "deleted"}),
                Err(error) => {
                    debug!(%error, "the end of a run is told without its details");
                    json!({"kind": "end"})
                }
            });
            tail.told_end(end);
        };
        self.tasks.spawn_on(asking, &self.runtime);
    }

    /// Cancelled when the gateway drains.
    #[must_use]
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Watches a run; its tail is started if nobody else watches it.
    pub fn watch(self: &Arc<Self>, run: Uuid) -> TailHandle {
        let mut tails = self.lock();
        let tail = tails.entry(run).or_insert_with(|| {
            let tail = Arc::new(RunTail::new(run, Arc::clone(&self.memory)));
            let (hub, task) = (Arc::clone(self), Arc::clone(&tail));
            self.tasks.spawn(async move { hub.follow(task).await });
            tail
        });
        tail.arrive();
        self.memory.arrive();
        let watch = TailHandle(Arc::clone(tail));
        self.memory.watched(tails.len());
        watch
    }

    /// How many runs are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.lock().len()
    }

    async fn follow(self: Arc<Self>, tail: Arc<RunTail>) {
        let run = tail.run_id();
        debug!(%run, "watched");
        self.bells.listen(Arc::clone(&tail));
        loop {
            let followed = self
                .stop
                .run_until_cancelled(tail.follow(&self.reader))
                .await;
            let mut tails = self.lock();
            // A viewer may have come between the tail's last look and this lock.
            if followed.is_none() || !tail.is_watched() {
                tails.remove(&run);
                self.memory.watched(tails.len());
                break;
            }
        }
        self.bells.leave(run);
        debug!(%run, "no longer watched");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<RunTail>>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
