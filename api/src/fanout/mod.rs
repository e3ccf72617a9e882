//! Fan-out: from one run stream to however many viewers.
//!
//! ```text
//! Redis stream --\                     /--> viewer: a cursor and a socket
//!                 reader -> tail -> ring ---> viewer
//! Postgres ------/          (one per run) \--> viewer
//! ```
//!
//! - [`reader`] reads a run from wherever it is held, without a seam.
//! - [`tail`] reads on for a watched run and fills its [`ring`] with [`frame`]s, encoded once.
//! - [`viewer`] follows the ring; one that is behind it reads for itself until it has caught up.
//! - [`bell`] wakes tails, and hears the signs of life of agents, `pulses`.
//!
//! There is no queue per viewer: a slow one only keeps a cursor, and what it has not taken yet waits
//! in Redis or Postgres.

pub mod bell;
pub mod frame;
mod pulses;
pub mod reader;
pub mod ring;
pub mod tail;
pub mod viewer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use runcast_common::connect::Redis;
use runcast_common::keys::Keys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use uuid::Uuid;

use crate::history::History;
use crate::store::Store;
use bell::Bells;
use reader::Reader;
use tail::Tail;

/// The watched runs of one gateway.
#[derive(Debug)]
pub struct Hub {
    reader: Reader,
    bells: Bells,
    tails: Mutex<HashMap<Uuid, Arc<Tail>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A viewer's hold on a tail, which stays for as long as anybody holds it.
#[derive(Debug)]
pub struct Watch(Arc<Tail>);

impl std::ops::Deref for Watch {
    type Target = Tail;

    fn deref(&self) -> &Tail {
        &self.0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.depart();
    }
}

impl Hub {
    /// A hub without any watched run. Tails are spawned on `tasks` and end when `stop` is cancelled;
    /// [`Hub::ring_bells`] must run for them to be woken at once.
    #[must_use]
    pub fn new(
        redis: Redis,
        store: Store,
        history: History,
        keys: Keys,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            bells: Bells::new(redis.clone(), keys.clone()),
            reader: Reader::new(redis, store, history, keys),
            tails: Mutex::default(),
            tasks,
            stop,
        })
    }

    /// Passes bells on to tails until the hub stops.
    pub async fn ring_bells(self: Arc<Self>) {
        self.bells.run(self.stop.clone()).await;
    }

    /// Reads for viewers that are behind their ring.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Cancelled when the gateway drains.
    #[must_use]
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Watches a run; its tail is started if nobody else watches it.
    pub fn watch(self: &Arc<Self>, run: Uuid) -> Watch {
        let mut tails = self.lock();
        let tail = tails.entry(run).or_insert_with(|| {
            let tail = Arc::new(Tail::new(run));
            let (hub, task) = (Arc::clone(self), Arc::clone(&tail));
            self.tasks.spawn(async move { hub.follow(task).await });
            tail
        });
        tail.arrive();
        Watch(Arc::clone(tail))
    }

    /// How many runs are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.lock().len()
    }

    async fn follow(self: Arc<Self>, tail: Arc<Tail>) {
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
                break;
            }
        }
        self.bells.leave(run);
        debug!(%run, "no longer watched");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<Tail>>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
