//! A Redis server of a story's own, with the default user for the services and a second user that may do
//! only what agents need.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use runcast_common::protocol::keys::Keys;
use uuid::Uuid;

use crate::eventually::eventually_within;
use crate::process::{Process, Recipe};
use crate::programs;

/// Longest wait for a new server to answer.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How many ports are tried, should somebody else take one between choosing and binding it.
const ATTEMPTS: usize = 5;

/// Folder of the append-only file.
const FILES: &str = "appendonlydir";

/// What a server remembers after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// What its append-only file holds.
    Kept,
    /// What it held at the last crash after which it was [`Memory::Kept`], as after a failover to a replica
    /// that lagged; nothing if there was none.
    Earlier,
    /// Nothing.
    Nothing,
}

/// A running Redis server.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
    password: String,
    publisher_password: String,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts a server in `folder`, whose agents may touch the keys of one installation.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(folder: &Path, keys: &Keys) -> Self {
        let password = Uuid::new_v4().simple().to_string();
        let publisher_password = Uuid::new_v4().simple().to_string();
        let rules = keys.publisher_acl().join(" ");
        let mut logs = String::new();
        for _ in 0..ATTEMPTS {
            let port = programs::free_port();
            let mut config = String::new();
            writeln!(
                config,
                "port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no"
            )
            .expect("text");
            writeln!(config, "dir {}", folder.display()).expect("text");
            writeln!(config, "user default on >{password} ~* &* +@all").expect("text");
            writeln!(config, "user publisher on >{publisher_password} {rules}").expect("text");
            fs::write(folder.join("redis.conf"), config)
                .expect("the Redis configuration is written");
            let mut server = Self {
                process: launch(folder),
                port,
                password: password.clone(),
                publisher_password: publisher_password.clone(),
                folder: folder.to_owned(),
            };
            if server.answers().await {
                return server;
            }
            logs = server.process.logs();
        }
        panic!("redis-server did not start on any of {ATTEMPTS} ports\n{logs}")
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for services, reached through `port`.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("redis://default:{}@127.0.0.1:{port}/0", self.password)
    }

    /// The address for agents, reached through `port`.
    #[must_use]
    pub fn publisher_url(&self, port: u16) -> String {
        format!(
            "redis://publisher:{}@127.0.0.1:{port}/0",
            self.publisher_password
        )
    }

    /// A connection that may do everything.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn connection(&self) -> MultiplexedConnection {
        connect(&self.url(self.port)).await
    }

    /// A connection with the rights of an agent.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn publisher(&self) -> MultiplexedConnection {
        connect(&self.publisher_url(self.port)).await
    }

    /// Kills the server; what it held is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same port, with nothing in it unless it has been told to
    /// [persist](Self::persist).
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.folder);
        self.is_back().await;
    }

    /// Starts the server again with an append-only file, synced every second: what it acknowledges survives
    /// its crash, as a rule.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn persist(&mut self) {
        let path = self.folder.join("redis.conf");
        let config = fs::read_to_string(&path).expect("the Redis configuration");
        let config = config.replace("appendonly no", "appendonly yes");
        fs::write(&path, config).expect("the Redis configuration is written");
        self.restart().await;
    }

    /// Kills a server that [persists](Self::persist), and starts it again after a while with what it is to
    /// remember.
    ///
    /// # Panics
    /// If it does not start, or its files cannot be handled.
    pub async fn crash(&mut self, memory: Memory, pause: Duration) {
        self.process.kill();
        let (now, earlier) = (self.folder.join(FILES), self.folder.join("earlier"));
        match memory {
            Memory::Kept => {
                forget(&earlier);
                copy(&now, &earlier);
            }
            Memory::Earlier if earlier.is_dir() => {
                forget(&now);
                copy(&earlier, &now);
            }
            Memory::Earlier | Memory::Nothing => forget(&now),
        }
        tokio::time::sleep(pause).await;
        self.process = launch(&self.folder);
        self.is_back().await;
    }

    async fn is_back(&mut self) {
        assert!(
            self.answers().await,
            "Redis does not start again: {}",
            self.process.logs()
        );
    }

    /// Its logs.
    #[must_use]
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// True once it answers, false if it ended instead.
    async fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.url(self.port)).expect("a Redis address");
        let process = &mut self.process;
        eventually_within(START_DEADLINE, "Redis answers", async || {
            if process.exited().is_some() {
                return Ok(false);
            }
            match client.get_multiplexed_async_connection().await {
                Ok(_connection) => Ok(true),
                Err(error) => Err(format!("{error}\n{}", process.logs())),
            }
        })
        .await
    }
}

fn forget(folder: &Path) {
    if folder.is_dir() {
        fs::remove_dir_all(folder).expect("the files of Redis are removed");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder for the files of Redis");
    for file in fs::read_dir(from).expect("the files of Redis") {
        let file = file.expect("a file of Redis");
        fs::copy(file.path(), to.join(file.file_name())).expect("a file of Redis is copied");
    }
}

fn launch(folder: &Path) -> Process {
    Recipe::new("redis", "redis-server", &["redis.conf"], folder).start(folder)
}

/// Opens a connection to the Redis at this address.
///
/// # Panics
/// If the server cannot be reached.
pub async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a Redis address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.unwrap_or_else(|error| panic!("the story's Redis cannot be reached: {error}"))
}
