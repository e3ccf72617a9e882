//! Receives the wake-ups of all watched runs, and the heartbeats of their agents.
//!
//! One connection carries all subscriptions. In a cluster there is one for each partition with
//! watched runs, since a slot may move to another node by itself.
//!
//! The append and settle scripts publish a wake-up (`SPUBLISH`) when there is more to read. It is a
//! hint: a lost one costs the time until the tail's next poll, never an event. After every new
//! subscription its tails read, because wake-ups may have been missed meanwhile. A lost heartbeat
//! is followed by the next.
//!
//! Any publisher may send any bytes on these channels. A message only reaches the tail of its own
//! run, which believes no wake-up before it has read.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value};
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT, PubSubChannel, Slot};
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::redis;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::tail::RunTail;

/// How often a silent connection is probed.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Subscribes to the channels of watched runs and dispatches their messages to the tails.
#[derive(Debug)]
pub struct WakeupSubscriber {
    redis: Redis,
    keys: Keys,
    /// In the order of the partitions that they serve.
    subscriptions: Vec<NodeSubscription>,
}

/// What one connection subscribes to.
#[derive(Debug)]
struct NodeSubscription {
    /// A slot of the partitions that it serves.
    slot: Slot,
    listeners: Mutex<Listeners>,
    /// Notified when `Listeners::changed` grows.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Listeners {
    tails: HashMap<Uuid, Arc<RunTail>>,
    /// Runs whose subscription may not agree with `tails`.
    changed: HashSet<Uuid>,
}

impl WakeupSubscriber {
    /// Wake-ups of this Redis. [`WakeupSubscriber::run`] must run for them to arrive.
    pub fn new(redis: Redis, keys: Keys) -> Self {
        let groups = redis.partition_groups();
        let subscriptions = groups.into_iter().map(|partitions| NodeSubscription {
            slot: Keys::slot(partitions.start),
            listeners: Mutex::default(),
            changed: Notify::new(),
        });
        Self {
            subscriptions: subscriptions.collect(),
            redis,
            keys,
        }
    }

    /// Dispatches the messages of the tail's run to it, until [`WakeupSubscriber::unsubscribe`].
    pub fn subscribe(&self, tail: Arc<RunTail>) {
        let run = tail.run_id();
        let node = self.node(run);
        let mut listeners = node.lock();
        listeners.tails.insert(run, tail);
        listeners.changed.insert(run);
        node.changed.notify_one();
    }

    /// Dispatches no more messages of this run.
    pub fn unsubscribe(&self, run: Uuid) {
        let node = self.node(run);
        let mut listeners = node.lock();
        listeners.tails.remove(&run);
        listeners.changed.insert(run);
        node.changed.notify_one();
    }

    fn node(&self, run: Uuid) -> &NodeSubscription {
        &self.subscriptions[Keys::partition(run) * self.subscriptions.len() / PARTITION_COUNT]
    }

    /// Keeps the subscriptions until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let nodes = self.subscriptions.iter().map(|node| self.reconnect(node));
        stop.run_until_cancelled(join_all(nodes)).await;
    }

    async fn reconnect(&self, node: &NodeSubscription) {
        let mut backoff = Backoff::for_connections();
        loop {
            // Connect once a run is watched.
            while node.lock().tails.is_empty() {
                node.changed.notified().await;
            }
            let ended = self.receive(node, &mut backoff).await;
            let is_first = backoff.attempts() == 0;
            let wait = backoff.next_wait();
            match ended {
                Ok(()) => warn!(?wait, "the connection for wake-ups ended; reconnecting"),
                Err(error) if is_first => {
                    warn!(%error, ?wait, "cannot receive wake-ups; tails poll until that works again");
                }
                Err(error) => debug!(%error, ?wait, "still cannot receive wake-ups"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, for as long as it lasts.
    async fn receive(
        &self,
        node: &NodeSubscription,
        backoff: &mut Backoff,
    ) -> Result<(), RedisFailure> {
        // A new connection has no subscriptions: all of them have to be made.
        let (mut connection, mut pushes) = self.redis.subscriber(node.slot).await?;
        {
            let mut listeners = node.lock();
            listeners.changed = listeners.tails.keys().copied().collect();
        }
        loop {
            let changed = std::mem::take(&mut node.lock().changed);
            for run in changed {
                self.update_subscription(node, &mut connection, run).await?;
            }
            backoff.reset();
            tokio::select! {
                () = node.changed.notified() => {}
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::SMessage => {
                        self.dispatch(node, &push.data);
                    }
                    // Unasked for a watched run: its slot has moved to another node.
                    Some(push) if push.kind == PushKind::SUnsubscribe => {
                        if self.listener(node, &push.data).is_some() {
                            return Ok(());
                        }
                    }
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = tokio::time::sleep(PING_INTERVAL) => {
                    self.send(&mut connection, &redis::cmd("PING")).await?;
                }
            }
        }
    }

    /// Subscribes to the channels of a run if it has a tail, and unsubscribes otherwise.
    async fn update_subscription(
        &self,
        node: &NodeSubscription,
        connection: &mut MultiplexedConnection,
        run: Uuid,
    ) -> Result<(), RedisFailure> {
        let tail = node.lock().tails.get(&run).cloned();
        let mut command = redis::cmd(if tail.is_some() {
            "SSUBSCRIBE"
        } else {
            "SUNSUBSCRIBE"
        });
        let keys = self.keys.run(run);
        command
            .arg(keys.wakeups)
            .arg(keys.heartbeats)
            .arg(keys.updates);
        self.send(connection, &command).await?;
        // Wake-ups from before the subscription did not arrive.
        if let Some(tail) = tail {
            tail.wake();
        }
        Ok(())
    }

    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        command: &redis::Cmd,
    ) -> Result<(), RedisFailure> {
        match timeout(REDIS_DEADLINE, command.query_async::<Value>(connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.timed_out(REDIS_DEADLINE)),
        }
    }

    /// Passes a message to the tail of its run.
    fn dispatch(&self, node: &NodeSubscription, data: &[Value]) {
        let Some((tail, channel)) = self.listener(node, data) else {
            return;
        };
        match (channel, data.get(1)) {
            (PubSubChannel::Wakeup, Some(Value::BulkString(message))) => tail.on_wakeup(message),
            (PubSubChannel::Heartbeat, Some(Value::BulkString(message))) => {
                tail.on_heartbeat(message);
            }
            (PubSubChannel::Update, Some(Value::BulkString(message))) => tail.on_update(message),
            (_, _) => {}
        }
    }

    /// The tail that listens to the channel that a push names.
    fn listener(
        &self,
        node: &NodeSubscription,
        data: &[Value],
    ) -> Option<(Arc<RunTail>, PubSubChannel)> {
        let Some(Value::BulkString(channel)) = data.first() else {
            return None;
        };
        let (run, channel) = self.keys.parse_channel(channel)?;
        let tail = node.lock().tails.get(&run).cloned()?;
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
