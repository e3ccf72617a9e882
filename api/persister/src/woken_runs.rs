//! Queues the runs whose agents publish to Redis with a user of their own, and so may not write to
//! the ready queue.
//!
//! Such an agent changes the wake key of its run. Each persister lets every master report which
//! keys with the prefix of wake keys change (`CLIENT TRACKING` in broadcasting mode), and lets
//! `enqueue.lua` look whether the run has to enter the queue. A report holds names of keys and
//! nothing that an agent wrote, a user may change the wake key of its own run alone, and Redis
//! reports a key once for each of its rounds, however often it changes. So an agent that does that
//! all the time makes its own run be looked at, at most once in [`PAUSE`], and delays no other.
//! `SUBSCRIBE` would not do: messages of megabytes end the connection, for all runs.
//!
//! A report may be missed while there is no connection. So each new connection begins with a look
//! at all runs that have a user ([`RunUsers`]); an idle run costs nothing beyond that. The agent
//! itself also wakes again if nothing happens for some seconds.
//!
//! Bounds: [`MAX_WOKEN_RUNS`] that wait for their call, [`MAX_CONCURRENT_CALLS`]. Time: a
//! connection is probed every [`PING_INTERVAL`], and the list of masters is read every
//! [`MASTERS_INTERVAL`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use redis::{PushKind, Value};
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure, Server};
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT};
use runcast_common::redis;
use runcast_common::run_users::RunUsers;
use runcast_common::scripts::{EnqueueReason, enqueue};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// Between two rounds of calls.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs that wait for their call. Beyond them all runs with a user are looked at.
const MAX_WOKEN_RUNS: usize = 100_000;

/// Calls in progress at the same time.
const MAX_CONCURRENT_CALLS: usize = 32;

/// How often a silent connection is probed.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often the list of masters is read: a cluster may get new ones.
const MASTERS_INTERVAL: Duration = Duration::from_secs(3);

/// Queues the runs that agents have woken. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct WokenRuns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    keys: Keys,
    users: RunUsers,
    woken: Mutex<HashSet<Uuid>>,
    /// Notified when `woken` grows.
    has_woken: Notify,
    /// Notified when reports may have been missed.
    may_have_missed: Notify,
}

/// What became of some runs.
#[derive(Debug, Default)]
struct Enqueued {
    /// How many have entered the queue.
    queued: usize,
    /// Those for which Redis was not available.
    failed: Vec<Uuid>,
}

impl WokenRuns {
    pub(crate) fn new(redis: Redis, keys: Keys) -> Self {
        Self(Arc::new(Shared {
            users: RunUsers::new(redis.clone(), keys.clone()),
            redis,
            keys,
            woken: Mutex::default(),
            has_woken: Notify::new(),
            may_have_missed: Notify::new(),
        }))
    }

    /// Queues runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let working = async {
            tokio::join!(
                self.listen(),
                self.0.enqueue_woken(),
                self.0.sweep_on_request()
            );
        };
        stop.run_until_cancelled(working).await;
    }

    /// Keeps a connection to each master.
    async fn listen(&self) {
        let mut connections = JoinSet::new();
        let mut listeners: HashMap<String, AbortHandle> = HashMap::new();
        loop {
            match self.0.redis.masters().await {
                Ok(masters) => {
                    listeners.retain(|address, listener| {
                        let is_master = masters.iter().any(|master| master.address() == address);
                        if !is_master {
                            listener.abort();
                        }
                        is_master && !listener.is_finished()
                    });
                    for master in masters {
                        let address = master.address().to_owned();
                        listeners.entry(address).or_insert_with(|| {
                            let shared = Arc::clone(&self.0);
                            let listening = async move { shared.keep_listening(&master).await };
                            connections.spawn(listening)
                        });
                    }
                }
                Err(error) => debug!(%error, "cannot list the masters of Redis"),
            }
            // One that has ended was stopped above, or has panicked; it is replaced by now.
            while let Some(ended) = connections.try_join_next() {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    error!(%error, "a listener for wake-ups of agents has panicked; restarting it");
                }
            }
            sleep(MASTERS_INTERVAL).await;
        }
    }
}

impl Shared {
    async fn keep_listening(&self, master: &Server) {
        let mut backoff = Backoff::for_connections();
        loop {
            let ended = self.receive(master, &mut backoff).await;
            let is_first = backoff.attempts() == 0;
            let wait = backoff.next_wait();
            match ended {
                Ok(()) => debug!("the connection for wake-ups of agents ended; reconnecting"),
                Err(error) if is_first => {
                    warn!(%error, ?wait, "cannot receive wake-ups of agents; reconnecting");
                }
                Err(error) => debug!(%error, ?wait, "still cannot receive wake-ups of agents"),
            }
            sleep(wait).await;
        }
    }

    /// One connection, for as long as it lasts.
    async fn receive(&self, master: &Server, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        let (mut connection, mut pushes) = master.subscriber().await?;
        let mut track = redis::cmd("CLIENT");
        track.arg(&["TRACKING", "ON", "BCAST", "PREFIX"]);
        track.arg(self.keys.wakes());
        self.redis.send(&mut connection, &track).await?;
        // What changed before is not reported.
        self.may_have_missed.notify_one();
        backoff.reset();
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Invalidate => self.take(&push.data),
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = sleep(PING_INTERVAL) => {
                    self.redis.send(&mut connection, &redis::cmd("PING")).await?;
                }
            }
        }
    }

    /// Takes the runs of the keys that a report names. After a flush it names none: nothing is left
    /// to store.
    fn take(&self, data: &[Value]) {
        let Some(Value::Array(keys)) = data.first() else {
            return;
        };
        let runs = keys.iter().filter_map(|key| match key {
            Value::BulkString(key) => self.keys.parse_wake(key),
            _ => None,
        });
        let mut woken = self.lock();
        for run in runs {
            if woken.len() >= MAX_WOKEN_RUNS {
                self.may_have_missed.notify_one();
                break;
            }
            woken.insert(run);
        }
        drop(woken);
        self.has_woken.notify_one();
    }

    async fn enqueue_woken(&self) {
        let mut backoff = Backoff::for_connections();
        loop {
            self.has_woken.notified().await;
            let runs = std::mem::take(&mut *self.lock());
            let done = self.enqueue_all(runs, EnqueueReason::Woken).await;
            if done.failed.is_empty() {
                backoff.reset();
                sleep(PAUSE).await;
            } else {
                self.lock().extend(done.failed);
                self.has_woken.notify_one();
                sleep(backoff.next_wait()).await;
            }
        }
    }

    async fn sweep_on_request(&self) {
        let mut backoff = Backoff::for_connections();
        loop {
            self.may_have_missed.notified().await;
            match self.sweep().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    debug!(%error, "cannot look for missed wake-ups of agents");
                    self.may_have_missed.notify_one();
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Looks at all runs that have a user, or had one when Redis started.
    async fn sweep(&self) -> Result<(), RedisFailure> {
        let mut runs = HashSet::new();
        match self.users.listed().await {
            Ok(users) => runs.extend(users.into_iter().map(|user| user.run)),
            Err(error) if error.is_outage() => return Err(error),
            // Not allowed here: then no gateway has created any.
            Err(error) => debug!(%error, "cannot list the users of Redis"),
        }
        for partition in 0..PARTITION_COUNT {
            let mut cursor = 0;
            loop {
                let (next, found) = self.users.runs(partition, cursor).await?;
                runs.extend(found);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        let done = self.enqueue_all(runs, EnqueueReason::Sweep).await;
        if done.queued > 0 {
            info!(
                runs = done.queued,
                "queued runs whose agents were not heard"
            );
        }
        if !done.failed.is_empty() {
            self.lock().extend(done.failed);
            self.has_woken.notify_one();
        }
        Ok(())
    }

    /// Queues those of these runs that need it.
    async fn enqueue_all(
        &self,
        runs: impl IntoIterator<Item = Uuid>,
        reason: EnqueueReason,
    ) -> Enqueued {
        let calls = stream::iter(runs).map(async |run| {
            let keys = self.keys.run(run);
            let queued = self.redis.run(keys.slot, async |connection| {
                enqueue(&keys, reason, connection).await
            });
            (run, queued.await)
        });
        let mut calls = std::pin::pin!(calls.buffer_unordered(MAX_CONCURRENT_CALLS));
        let mut done = Enqueued::default();
        while let Some((run, queued)) = calls.next().await {
            match queued {
                Ok(is_queued) => done.queued += usize::from(is_queued),
                Err(error) if error.is_outage() => done.failed.push(run),
                Err(error) => debug!(%error, %run, "cannot queue a run"),
            }
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
