//! The Redis server of this benchmark, on the loopback address, and the effects of a persister on
//! one of its runs. For [`transport`](crate::transport) with a gateway in front of it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::redis;
use runcast_common::scripts::{LiveWindow, Settle};
use runcast_publisher::{Options, SpoolOptions, Target};
use runcast_tests::redis_server::RedisServer;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often the events in Redis are settled and trimmed, as a persister does that keeps up.
const SETTLE_EVERY: Duration = Duration::from_millis(20);

const PREFIX: &str = "bench:";

/// A running server; it ends when dropped, or with this process.
pub(crate) struct Server {
    server: RedisServer,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            server: RedisServer::start(folder.path()).await,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        self.server.url(self.server.port())
    }

    pub(crate) fn redis(&self) -> Redis {
        Redis::new(&self.url().parse().expect("a URL")).expect("a client")
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.process_id()
    }

    /// A new run without events.
    pub(crate) fn target(&self) -> Target {
        Target::in_redis(
            self.url().parse().expect("a URL"),
            PREFIX,
            Uuid::now_v7(),
            0,
        )
    }

    /// Stops the server (SIGSTOP) or resumes it.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.server.process_id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("the server can be signalled");
    }

    /// Settles all events of the run again and again, until the task is aborted. The run must have
    /// only this producer.
    pub(crate) fn keep_settled(&self, run: Uuid, producer: Uuid) -> JoinHandle<()> {
        keep_settled(self.redis(), Keys::new(PREFIX).run(run), producer)
    }
}

/// Settles all events of a run again and again, as [`Server::keep_settled`] does.
pub(crate) fn keep_settled(redis: Redis, keys: RunKeys, producer: Uuid) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut ask = redis::cmd("HMGET");
            ask.arg(&keys.meta).arg("epoch").arg("seq");
            let last = redis
                .query::<(Option<u64>, Option<u64>)>(keys.slot, &ask)
                .await;
            if let Ok((Some(epoch), Some(seq))) = last {
                let settle = Settle {
                    watermark: EventId::new(epoch, seq),
                    sealed: None,
                    ready_ids: &[],
                    durable: &[(producer, seq)],
                    window: LiveWindow {
                        events: 0,
                        bytes: 0,
                        seconds: 900,
                    },
                };
                // Fails while the server is stopped.
                let settled = redis.run(keys.slot, async |connection| {
                    settle.call(&keys, connection).await
                });
                drop(settled.await);
            }
            sleep(SETTLE_EVERY).await;
        }
    })
}

/// A folder for spools, on the disk of the build rather than in memory.
pub(crate) fn spool_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// The default options, with a spool in a folder or without.
pub(crate) fn options(folder: Option<&TempDir>) -> Options {
    Options {
        spool: folder.map(|folder| SpoolOptions::new(folder.path())),
        ..Options::default()
    }
}
