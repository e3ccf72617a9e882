//! A Redis server for this benchmark, on a free port of the loopback address, and what a persister
//! would do to a run in it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runcast_common::connect::Redis;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::redis;
use runcast_common::scripts::{Settle, Window};
use runcast_publisher::{Options, SpoolOptions, Target};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often everything in Redis is declared stored, and trimmed: like a persister that keeps up.
const SETTLE_EVERY: Duration = Duration::from_millis(20);

const KEY_PREFIX: &str = "bench:";

/// A running server; it ends with the value or with this process.
pub(crate) struct Server {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// Call it on the thread that lives longest: the server ends with it.
    pub(crate) async fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let folder = tempfile::tempdir().expect("a folder");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "redis-server"])
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server and setpriv are installed");
        let server = Self {
            process,
            port,
            _folder: folder,
        };
        let redis = server.redis();
        for _ in 0..1000 {
            if redis
                .query::<String>(Keys::slot(0), &redis::cmd("PING"))
                .await
                .is_ok()
            {
                return server;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer on port {port}");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn redis(&self) -> Redis {
        Redis::new(&self.url().parse().expect("an address")).expect("a client")
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// A run without any events.
    pub(crate) fn target(&self) -> Target {
        Target {
            redis: self.url().parse().expect("an address"),
            prefix: KEY_PREFIX.into(),
            run: Uuid::now_v7(),
            variation: 0,
        }
    }

    /// Sends a signal to the server: stops it at any moment, or lets it continue.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("the server can be signalled");
    }

    /// Declares everything in the run stored, repeatedly, until the task is aborted. The run must
    /// have only this producer.
    pub(crate) fn keep_settled(&self, run: Uuid, producer: Uuid) -> JoinHandle<()> {
        let redis = self.redis();
        let keys = Keys::new(KEY_PREFIX).run(run);
        tokio::spawn(async move {
            loop {
                let mut query = redis::cmd("HMGET");
                query.arg(&keys.meta).arg("epoch").arg("seq");
                let last = redis
                    .query::<(Option<u64>, Option<u64>)>(keys.slot, &query)
                    .await;
                if let Ok((Some(epoch), Some(seq))) = last {
                    let settle = Settle {
                        watermark: EventId::new(epoch, seq),
                        sealed: None,
                        ready_ids: &[],
                        durable: &[(producer, seq)],
                        window: Window {
                            events: 0,
                            bytes: 0,
                            seconds: 900,
                        },
                    };
                    // While the server is stopped there is nothing to settle.
                    let settled = redis.run(keys.slot, async |connection| {
                        settle.call(&keys, connection).await
                    });
                    drop(settled.await);
                }
                sleep(SETTLE_EVERY).await;
            }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A folder for spools, on the disk of the build and not in memory.
pub(crate) fn spool_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// The default options, with or without a spool.
pub(crate) fn options(folder: Option<&TempDir>) -> Options {
    Options {
        spool: folder.map(|folder| SpoolOptions::new(folder.path())),
        ..Options::default()
    }
}
