//! Receives the wake-ups of all watched runs, the heartbeats of their agents, and the notices to
//! agents that publish through this gateway.
//!
//! One connection carries all subscriptions. In a cluster there is one for each partition with
//! watched runs, since a slot may move to another node by itself.
//!
//! The append and settle scripts publish a wake-up (`SPUBLISH`) when there is more to read. It is a
//! hint: a lost one costs the time until the tail's next poll, never an event. After every new
//! subscription its tails read, because wake-ups may have been missed meanwhile. After every new
//! connection they drop the events that they keep, because the news that some were redacted may
//! have been missed. A lost heartbeat is followed by the next.
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
use runcast_common::redis;
use tokio::sync::{Notify, watch};
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
    /// Runs whose agents publish through this gateway.
    notices: HashMap<Uuid, NoticeListeners>,
    /// Runs whose subscription may not agree with `tails` and `notices`.
    changed: HashSet<Uuid>,
}

/// Those who wait for notices to the agents of one run.
#[derive(Debug)]
struct NoticeListeners {
    count: usize,
    /// Changes with every notice. A notice has no content: its listener reads what it needs.
    notice: watch::Sender<()>,
}

/// Notices to the agents of one run, until it is dropped.
#[derive(Debug)]
pub struct NoticeSubscription {
    wakeups: Arc<WakeupSubscriber>,
    run: Uuid,
    notice: watch::Receiver<()>,
}

impl NoticeSubscription {
    /// Waits for a notice, or until the subscription to them was made anew. Cancel safe.
    pub async fn next(&mut self) {
        // The sender is there for as long as this subscription is.
        if self.notice.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for NoticeSubscription {
    fn drop(&mut self) {
        let node = self.wakeups.node(self.run);
        let mut listeners = node.lock();
        if let Some(listening) = listeners.notices.get_mut(&self.run) {
            listening.count -= 1;
            if listening.count == 0 {
                listeners.notices.remove(&self.run);
                listeners.changed.insert(self.run);
                node.changed.notify_one();
            }
        }
    }
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

    /// Subscribes to the notices to the agents of a run; none if `max` listen to them already.
    pub fn notices(self: &Arc<Self>, run: Uuid, max: usize) -> Option<NoticeSubscription> {
        let node = self.node(run);
        let mut listeners = node.lock();
        let Listeners {
            notices, changed, ..
        } = &mut *listeners;
        let listening = notices.entry(run).or_insert_with(|| {
            changed.insert(run);
            NoticeListeners {
                count: 0,
                notice: watch::Sender::new(()),
            }
        });
        if listening.count >= max {
            return None;
        }
        listening.count += 1;
        let notice = listening.notice.subscribe();
        node.changed.notify_one();
        Some(NoticeSubscription {
            wakeups: Arc::clone(self),
            run,
            notice,
        })
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
            while node.lock().is_empty() {
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
            let runs = listeners.tails.keys().chain(listeners.notices.keys());
            listeners.changed = runs.copied().collect();
        }
        let mut is_new = true;
        loop {
            let changed = std::mem::take(&mut node.lock().changed);
            for run in changed {
                self.update_subscription(node, &mut connection, run).await?;
            }
            backoff.reset();
            if std::mem::take(&mut is_new) {
                let tails: Vec<_> = node.lock().tails.values().cloned().collect();
                tails.iter().for_each(|tail| tail.forget_events());
            }
            tokio::select! {
                () = node.changed.notified() => {}
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::SMessage => {
                        self.dispatch(node, &push.data);
                    }
                    // Unasked for a watched run: its slot has moved to another node.
                    Some(push) if push.kind == PushKind::SUnsubscribe => {
                        if self.is_listened_to(node, &push.data) {
                            return Ok(());
                        }
                    }
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = tokio::time::sleep(PING_INTERVAL) => {
                    self.redis.send(&mut connection, &redis::cmd("PING")).await?;
                }
            }
        }
    }

    /// Subscribes to the channels of a run that have listeners, and unsubscribes from the others.
    async fn update_subscription(
        &self,
        node: &NodeSubscription,
        connection: &mut MultiplexedConnection,
        run: Uuid,
    ) -> Result<(), RedisFailure> {
        let (tail, has_agents) = {
            let listeners = node.lock();
            let tail = listeners.tails.get(&run).cloned();
            (tail, listeners.notices.contains_key(&run))
        };
        let keys = self.keys.run(run);
        let for_viewers = [&keys.wakeups, &keys.heartbeats, &keys.updates];
        let (viewers, agents) = (subscribe(tail.is_some()), subscribe(has_agents));
        let mut viewers = redis::cmd(viewers);
        let mut agents = redis::cmd(agents);
        viewers.arg(&for_viewers);
        agents.arg(&keys.notices);
        self.redis.send(connection, &viewers).await?;
        self.redis.send(connection, &agents).await?;
        // What was published before the subscription did not arrive.
        if let Some(tail) = tail {
            tail.wake();
        }
        if has_agents {
            node.lock().notify_agents(run);
        }
        Ok(())
    }

    /// Passes a message to those who listen to it.
    fn dispatch(&self, node: &NodeSubscription, data: &[Value]) {
        let Some((run, channel)) = self.parse_channel(data) else {
            return;
        };
        if channel == PubSubChannel::Notice {
            return node.lock().notify_agents(run);
        }
        let Some(tail) = node.lock().tails.get(&run).cloned() else {
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

    /// Whether the channel that a push names has listeners.
    fn is_listened_to(&self, node: &NodeSubscription, data: &[Value]) -> bool {
        let listeners = node.lock();
        match self.parse_channel(data) {
            Some((run, PubSubChannel::Notice)) => listeners.notices.contains_key(&run),
            Some((run, _)) => listeners.tails.contains_key(&run),
            None => false,
        }
    }

    fn parse_channel(&self, data: &[Value]) -> Option<(Uuid, PubSubChannel)> {
        match data.first()? {
            Value::BulkString(channel) => self.keys.parse_channel(channel),
            _ => None,
        }
    }
}

/// The command for channels that have listeners, or have none any more.
const fn subscribe(is_listened_to: bool) -> &'static str {
    match is_listened_to {
        true => "SSUBSCRIBE",
        false => "SUNSUBSCRIBE",
    }
}

impl Listeners {
    fn is_empty(&self) -> bool {
        self.tails.is_empty() && self.notices.is_empty()
    }

    fn notify_agents(&self, run: Uuid) {
        if let Some(listening) = self.notices.get(&run) {
            listening.notice.send_replace(());
        }
    }
}

impl NodeSubscription {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
