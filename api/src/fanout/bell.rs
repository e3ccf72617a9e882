//! The bells of all watched runs, and the signs of life of their agents, on one connection.
//!
//! A bell (`SPUBLISH` by the append and settle scripts) says that there is more to read. It is a hint:
//! one that is lost costs the tail's next look, never an event. After every new connection all tails
//! are woken, because bells may have been missed meanwhile. A pulse that was missed is followed by the next.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value};
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::keys::{Channel, Keys};
use runcast_common::limits::REDIS_DEADLINE;
use runcast_common::redis;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::tail::Tail;

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Subscribes and passes bells on to the tails.
#[derive(Debug)]
pub struct Bells {
    redis: Redis,
    keys: Keys,
    listeners: Mutex<Listeners>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Listeners {
    /// Whom to wake for which run.
    tails: HashMap<Uuid, Arc<Tail>>,
    /// Runs whose subscription may not fit `tails`.
    changed: HashSet<Uuid>,
}

impl Bells {
    /// Bells of this Redis. [`Bells::run`] must be running for them to ring.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Self {
        Self {
            redis,
            keys,
            listeners: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Wakes `tail` whenever the bell of its run rings, and passes on what its agents say, until
    /// [`Bells::leave`].
    pub fn listen(&self, tail: Arc<Tail>) {
        let mut listeners = self.lock();
        let run = tail.run_id();
        listeners.tails.insert(run, tail);
        listeners.changed.insert(run);
        self.changed.notify_one();
    }

    /// No longer wakes anybody for `run`.
    pub fn leave(&self, run: Uuid) {
        let mut listeners = self.lock();
        listeners.tails.remove(&run);
        listeners.changed.insert(run);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the subscriptions until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = Backoff::for_connections();
        while let Some(attended) = stop.run_until_cancelled(self.attend(&mut backoff)).await {
            let wait = backoff.next_wait();
            match attended {
                Ok(()) => warn!(?wait, "the connection of the bells ended"),
                Err(error) => {
                    warn!(%error, ?wait, "no bells for now; runs are looked at regularly");
                }
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// One connection, for as long as it lasts.
    async fn attend(&self, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        let (mut connection, mut pushes) = self.redis.subscriber().await?;
        {
            let mut listeners = self.lock();
            listeners.changed = listeners.tails.keys().copied().collect();
        }
        loop {
            let changed = std::mem::take(&mut self.lock().changed);
            for run in changed {
                self.subscribe(&mut connection, run).await?;
            }
            backoff.reset();
            tokio::select! {
                () = self.changed.notified() => {}
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::SMessage => self.ring(&push.data),
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
        connection: &mut MultiplexedConnection,
        run: Uuid,
    ) -> Result<(), RedisFailure> {
        let tail = self.lock().tails.get(&run).cloned();
        let mut command = redis::cmd(if tail.is_some() {
            "SSUBSCRIBE"
        } else {
            "SUNSUBSCRIBE"
        });
        let keys = self.keys.run(run);
        command.arg(keys.bell).arg(keys.pulse);
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
        let address = || self.redis.address().to_owned();
        match timeout(REDIS_DEADLINE, command.query_async::<Value>(connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(RedisFailure::Failed {
                address: address(),
                error,
            }),
            Err(_elapsed) => Err(RedisFailure::Silent {
                address: address(),
                deadline: REDIS_DEADLINE,
            }),
        }
    }

    fn ring(&self, data: &[Value]) {
        let Some(Value::BulkString(channel)) = data.first() else {
            return;
        };
        let Some((run, channel)) = self.keys.parse_channel(channel) else {
            return;
        };
        let Some(tail) = self.lock().tails.get(&run).cloned() else {
            return;
        };
        match (channel, data.get(1)) {
            (Channel::Bell, _) => tail.wake.notify_one(),
            (Channel::Pulse, Some(Value::BulkString(message))) => tail.hear(message),
            (Channel::Pulse, _) => {}
        }
    }
}
