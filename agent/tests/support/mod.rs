//! A Redis server per test, and the effects of the persister on it.

#![allow(dead_code, reason = "each test program uses only some of it")]

pub(crate) mod gateway;
pub(crate) mod wrapped;

use std::time::Duration;

use runcast_common::connect::Redis;
use runcast_common::protocol::entry::{Entry, Event};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::redis;
use runcast_common::scripts::{LiveWindow, Settle};
use runcast_publisher::Target;
pub(crate) use runcast_tests::eventually::wait_until as eventually;
use runcast_tests::redis_server::RedisServer;
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

/// Longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The prefix of all keys.
const PREFIX: &str = "test:";

/// A Redis server with a folder of its own; it ends when dropped.
pub(crate) struct Server {
    server: RedisServer,
    folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let mut server = Self::down();
        server.up().await;
        server
    }

    /// A server with an address that does not run yet.
    pub(crate) fn down() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("redis.sock");
        let config = format!(
            "enable-debug-command yes\nunixsocket {}\n",
            socket.display()
        );
        Self {
            server: RedisServer::stopped(folder.path(), &config),
            folder,
        }
    }

    /// Starts it, empty.
    pub(crate) async fn up(&mut self) {
        self.server.restart().await;
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(self.server.port())
    }

    /// Its URL by a socket of the file system.
    pub(crate) fn socket_url(&self) -> String {
        let url = self.url();
        let credentials = url.trim_start_matches("redis://").split('@').next();
        let (user, password) = credentials
            .and_then(|both| both.split_once(':'))
            .expect("both");
        let socket = self.folder.path().join("redis.sock");
        format!(
            "redis+unix://{}?user={user}&pass={password}",
            socket.display()
        )
    }

    pub(crate) fn redis(&self) -> Redis {
        Redis::new(&self.url().parse().expect("a URL")).expect("a client")
    }

    pub(crate) fn target(&self) -> Target {
        Target::in_redis(
            self.url().parse().expect("a URL"),
            PREFIX,
            Uuid::now_v7(),
            0,
        )
    }

    /// A target with exactly the rights that agents are given.
    pub(crate) async fn restricted(&self) -> Target {
        let target = self.target();
        let url = self.server.run_user(&Keys::new(PREFIX), target.run).await;
        Target {
            redis: Some(url.parse().expect("a URL")),
            ..target
        }
    }
}

/// A reader of one run.
pub(crate) struct Run {
    pub(crate) redis: Redis,
    pub(crate) keys: RunKeys,
}

impl Run {
    pub(crate) fn of(target: &Target, server: &Server) -> Self {
        Self {
            redis: server.redis(),
            keys: Keys::new(&target.prefix).run(target.run),
        }
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let range = redis::cmd("XRANGE")
            .arg(&self.keys.stream)
            .arg("-")
            .arg("+")
            .to_owned();
        let reply = self
            .redis
            .query(self.keys.slot, &range)
            .await
            .expect("a reply");
        let entries = Entry::parse_range(reply).expect("entries");
        entries
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("readable")
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let entries = self.entries().await;
        entries.iter().flat_map(Entry::events).collect()
    }

    /// Acts as a persister that has just stored everything in Redis, and trims it. Returns the
    /// stored events.
    pub(crate) async fn settle(&self) -> Vec<Event> {
        let entries = self.entries().await;
        if let Some(last) = entries.last() {
            let durable = [(last.producer, last.producer_last())];
            let nothing = LiveWindow {
                events: 0,
                bytes: 0,
                seconds: 900,
            };
            self.settle_at(last.last, &durable, nothing).await;
        }
        entries.iter().flat_map(Entry::events).collect()
    }

    /// Acts as a persister that stores all entries at once, and trims nothing. Never ends.
    pub(crate) async fn settle_on_and_on(&self) {
        let last = redis::cmd("XREVRANGE")
            .arg(&self.keys.stream)
            .arg(&["+", "-", "COUNT", "1"])
            .to_owned();
        let everything = LiveWindow {
            events: 1 << 40,
            bytes: 1 << 40,
            seconds: 900,
        };
        loop {
            // Some tests stop the server.
            if let Ok(reply) = self.redis.query(self.keys.slot, &last).await
                && let Some(Ok(last)) = Entry::parse_range(reply).expect("entries").pop()
            {
                let durable = [(last.producer, last.producer_last())];
                self.settle_at(last.last, &durable, everything).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn settle_at(&self, watermark: EventId, durable: &[(Uuid, u64)], window: LiveWindow) {
        let settle = Settle {
            watermark,
            sealed: None,
            ready_ids: &[],
            durable,
            window,
        };
        self.redis
            .run(self.keys.slot, async |connection| {
                settle.call(&self.keys, connection).await
            })
            .await
            .expect("settled");
    }
}
