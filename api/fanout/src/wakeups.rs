//! The bells of all watched runs, and the signs of life of their agents: on one connection, or in a
//! cluster on one for each partition with watched runs, since a slot may move to another node by itself.
//!
//! A bell (`SPUBLISH` by the append and settle scripts) says that there is more to read. It is a hint:
//! one that is lost costs the tail's next look, never an event. After every new connection all tails
//! are woken, because bells may have been missed meanwhile. A pulse that was missed is followed by the next.
//!
//! A small entry rides on its bell; a tail that has all before it takes it from there instead of reading. When more
//! than [`CALM`] messages wait here, bells only wake: reading then brings many entries at a time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value};
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, PARTITIONS, PubSubChannel, Slot};
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::redis;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::tail::RunTail;

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Messages that may wait to be passed on before what rides on bells is no longer looked at.
const CALM: usize = 256;

/// Subscribes and passes bells on to the tails.
#[derive(Debug)]
pub struct WakeupSubscriber {
    redis: Redis,
    keys: Keys,
    lanes: Vec<NodeSubscription>,
}

/// What one connection listens to.
#[derive(Debug)]
struct NodeSubscription {
    /// Where it lies, or a part of it.
    slot: Slot,
    listeners: Mutex<Listeners>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Listeners {
    /// Whom to wake for which run.
    tails: HashMap<Uuid, Arc<RunTail>>,
    /// Runs whose subscription may not fit `tails`.
    changed: HashSet<Uuid>,
}

impl WakeupSubscriber {
    /// Bells of this Redis. [`WakeupSubscriber::run`] must be running for them to ring.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Self {
        let lanes = redis
            .lanes()
            .into_iter()
            .map(|partitions| NodeSubscription {
                slot: Keys::slot(partitions.start),
                listeners: Mutex::default(),
                changed: Notify::new(),
            });
        Self {
            lanes: lanes.collect(),
            redis,
            keys,
        }
    }

    /// Wakes `tail` whenever the bell of its run rings, and passes on what its agents say, until
    /// [`WakeupSubscriber::leave`].
    pub fn listen(&self, tail: Arc<RunTail>) {
        let run = tail.run_id();
        let lane = self.lane(run);
        let mut listeners = lane.lock();
        listeners.tails.insert(run, tail);
        listeners.changed.insert(run);
        lane.changed.notify_one();
    }

    /// No longer wakes anybody for `run`.
    pub fn leave(&self, run: Uuid) {
        let lane = self.lane(run);
        let mut listeners = lane.lock();
        listeners.tails.remove(&run);
        listeners.changed.insert(run);
        lane.changed.notify_one();
    }

    fn lane(&self, run: Uuid) -> &NodeSubscription {
        &self.lanes[Keys::partition(run) * self.lanes.len() / PARTITIONS]
    }

    /// Keeps the subscriptions until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let lanes = self.lanes.iter().map(|lane| self.keep_attending(lane));
        stop.run_until_cancelled(join_all(lanes)).await;
    }

    async fn keep_attending(&self, lane: &NodeSubscription) {
        let mut backoff = Backoff::for_connections();
        loop {
            // A connection is made once there is something to listen to.
            while lane.lock().tails.is_empty() {
                lane.changed.notified().await;
            }
            let attended = self.attend(lane, &mut backoff).await;
            let is_first = backoff.attempts() == 0;
            let wait = backoff.next_wait();
            match attended {
                Ok(()) => warn!(?wait, "the connection of the bells ended"),
                Err(error) if is_first => {
                    warn!(%error, ?wait, "no bells for now; runs are looked at regularly");
                }
                Err(error) => debug!(%error, ?wait, "still no bells"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, for as long as it lasts.
    async fn attend(
        &self,
        lane: &NodeSubscription,
        backoff: &mut Backoff,
    ) -> Result<(), RedisFailure> {
        let (mut connection, mut pushes) = self.redis.subscriber(lane.slot).await?;
        {
            let mut listeners = lane.lock();
            listeners.changed = listeners.tails.keys().copied().collect();
        }
        loop {
            let changed = std::mem::take(&mut lane.lock().changed);
            for run in changed {
                self.subscribe(lane, &mut connection, run).await?;
            }
            backoff.reset();
            tokio::select! {
                () = lane.changed.notified() => {}
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::SMessage => {
                        self.ring(lane, &push.data, pushes.len() <= CALM);
                    }
                    // Not asked for: the slot has moved to another node.
                    Some(push) if push.kind == PushKind::SUnsubscribe => {
                        if self.listener(lane, &push.data).is_some() {
                            return Ok(());
                        }
                    }
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = tokio::time::sleep(PROBE_EVERY) => {
                    self.ask(&mut connection, &redis::cmd("PING")).await?;
                }
            }
        }
    }

    /// Subscribes to a run that somebody listens to, and unsubscribes from one that nobody does.
    async fn subscribe(
        &self,
        lane: &NodeSubscription,
        connection: &mut MultiplexedConnection,
        run: Uuid,
    ) -> Result<(), RedisFailure> {
        let tail = lane.lock().tails.get(&run).cloned();
        let mut command = redis::cmd(if tail.is_some() {
            "SSUBSCRIBE"
        } else {
            "SUNSUBSCRIBE"
        });
        let keys = self.keys.run(run);
        command.arg(keys.bell).arg(keys.pulse).arg(keys.state);
        self.ask(connection, &command).await?;
        // What rang before the subscription stood was not heard.
        if let Some(tail) = tail {
            tail.wake.notify_one();
        }
        Ok(())
    }

    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        command: &redis::Cmd,
    ) -> Result<(), RedisFailure> {
        match timeout(REDIS_DEADLINE, command.query_async::<Value>(connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.silent(REDIS_DEADLINE)),
        }
    }

    fn ring(&self, lane: &NodeSubscription, data: &[Value], is_calm: bool) {
        let Some((tail, channel)) = self.listener(lane, data) else {
            return;
        };
        match (channel, data.get(1)) {
            (PubSubChannel::Bell, Some(Value::BulkString(message))) if is_calm => {
                tail.ring(message);
            }
            (PubSubChannel::Bell, _) => tail.wake.notify_one(),
            (PubSubChannel::Pulse, Some(Value::BulkString(message))) => tail.hear(message),
            (PubSubChannel::State, Some(Value::BulkString(message))) => tail.learn(message),
            (PubSubChannel::Pulse | PubSubChannel::State, _) => {}
        }
    }

    /// Who listens to the channel that a push names.
    fn listener(
        &self,
        lane: &NodeSubscription,
        data: &[Value],
    ) -> Option<(Arc<RunTail>, PubSubChannel)> {
        let Some(Value::BulkString(channel)) = data.first() else {
            return None;
        };
        let (run, channel) = self.keys.parse_channel(channel)?;
        let tail = lane.lock().tails.get(&run).cloned()?;
        Some((tail, channel))
    }
}

impl NodeSubscription {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
