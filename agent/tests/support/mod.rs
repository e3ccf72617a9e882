//! A real Redis of each test's own, and what the persister does to it.

#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod gateway;
pub(crate) mod wrapped;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runcast_common::connect::Redis;
use runcast_common::protocol::entry::{Entry, Event};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::redis;
use runcast_common::scripts::{Settle, Window};
use runcast_publisher::Target;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server on a socket in a folder of its own; it ends with the value.
pub(crate) struct Server {
    process: Option<Child>,
    folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let mut server = Self::down();
        server.up().await;
        server
    }

    /// A server that does not run yet, with an address.
    pub(crate) fn down() -> Self {
        Self {
            process: None,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Starts it, empty.
    pub(crate) async fn up(&mut self) {
        let folder = &self.folder;
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(folder.path().join("redis.sock"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        let redis = self.redis();
        eventually("the server answers", async || {
            redis
                .query::<String>(Keys::slot(0), &redis::cmd("PING"))
                .await
                .is_ok()
        })
        .await;
    }

    pub(crate) fn url(&self) -> String {
        let socket = self.folder.path().join("redis.sock");
        format!("redis+unix://{}", socket.display())
    }

    pub(crate) fn redis(&self) -> Redis {
        Redis::new(&self.url().parse().expect("an address")).expect("a client")
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            redis: self.url().parse().expect("an address"),
            prefix: "test:".into(),
            run: Uuid::now_v7(),
            variation: 0,
        }
    }

    /// A target with exactly the rights that agents are given.
    pub(crate) async fn restricted(&self) -> Target {
        let mut target = self.target();
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("publisher").arg("on").arg(">pw");
        user.arg(Keys::new(&target.prefix).publisher_acl());
        let redis = self.redis();
        let made = redis.query::<()>(Keys::slot(0), &user).await;
        made.expect("a user");
        let url = format!("{}?user=publisher&pass=pw", self.url());
        target.redis = url.parse().expect("an address");
        target
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }
}

/// Waits until a condition holds; a panic names what did not come.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(5)).await;
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

    /// Acts as the persister that has just stored everything Redis holds, which it gives, and trims
    /// it.
    pub(crate) async fn settle(&self) -> Vec<Event> {
        let entries = self.entries().await;
        if let Some(last) = entries.last() {
            let durable = [(last.producer, last.producer_last())];
            let nothing = Window {
                events: 0,
                bytes: 0,
                seconds: 900,
            };
            self.settle_at(last.last, &durable, nothing).await;
        }
        entries.iter().flat_map(Entry::events).collect()
    }

    /// Acts as the persister that stores whatever comes at once, and trims nothing; never ends.
    pub(crate) async fn settle_on_and_on(&self) {
        let last = redis::cmd("XREVRANGE")
            .arg(&self.keys.stream)
            .arg(&["+", "-", "COUNT", "1"])
            .to_owned();
        let everything = Window {
            events: 1 << 40,
            bytes: 1 << 40,
            seconds: 900,
        };
        loop {
            // Some tests take the server away.
            if let Ok(reply) = self.redis.query(self.keys.slot, &last).await
                && let Some(Ok(last)) = Entry::parse_range(reply).expect("entries").pop()
            {
                let durable = [(last.producer, last.producer_last())];
                self.settle_at(last.last, &durable, everything).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn settle_at(&self, watermark: EventId, durable: &[(Uuid, u64)], window: Window) {
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
