//! The Redis server of one story: a single [`RedisNode`] with the user `default` for services and
//! the user `publisher`, who may do only what agents need.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use runcast_common::protocol::keys::Keys;

use crate::redis_node::{CONFIG_FILE, RedisDeployment, RedisNode};

/// Folder of the append-only file.
const APPEND_ONLY_FOLDER: &str = "appendonlydir";

/// What a server restores after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashRecovery {
    /// Its append-only file.
    AppendOnlyFile,
    /// The append-only file of the last crash with [`CrashRecovery::AppendOnlyFile`], as after a
    /// failover to a replica that lagged; nothing if there was no such crash.
    EarlierCopy,
    /// Nothing.
    Empty,
}

/// A Redis server; it ends when dropped.
#[derive(Debug)]
pub struct RedisServer {
    deployment: RedisDeployment,
    node: RedisNode,
}

impl RedisServer {
    /// Starts a server with files in `folder`. Its agents may access the keys of one installation
    /// only.
    pub async fn start(folder: &Path, keys: &Keys) -> Self {
        let deployment = RedisDeployment::new(folder, keys, false);
        let node = deployment.start_node("redis", |_port| String::new()).await;
        Self { deployment, node }
    }

    /// A server with these further lines of configuration, and with an address, that does not run
    /// before its first [restart](Self::restart).
    pub fn stopped(folder: &Path, keys: &Keys, config: &str) -> Self {
        let deployment = RedisDeployment::new(folder, keys, false);
        let node = deployment.prepare_node("redis", config);
        Self { deployment, node }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.node.port()
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.node.process_id()
    }

    /// The URL for services, reached through `port`.
    pub fn url(&self, port: u16) -> String {
        let [services, _agents] = self.deployment.urls_at(port);
        services
    }

    /// The URL for agents, reached through `port`.
    pub fn publisher_url(&self, port: u16) -> String {
        let [_services, agents] = self.deployment.urls_at(port);
        agents
    }

    /// A connection with all rights.
    pub async fn connection(&self) -> MultiplexedConnection {
        connect(&self.url(self.port())).await
    }

    /// A connection with the rights of an agent.
    pub async fn publisher_connection(&self) -> MultiplexedConnection {
        connect(&self.publisher_url(self.port())).await
    }

    /// Kills the server. What it held in memory is lost.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts the server again on the same port: empty, unless it has an
    /// [append-only file](Self::enable_append_only_file).
    pub async fn restart(&mut self) {
        self.node.restart().await;
    }

    /// Restarts the server with an append-only file, synced every second: what it acknowledges
    /// normally survives its crash.
    pub async fn enable_append_only_file(&mut self) {
        let path = self.node.folder().join(CONFIG_FILE);
        let config = fs::read_to_string(&path).expect("the Redis configuration");
        let config = config.replace("appendonly no", "appendonly yes");
        fs::write(&path, config).expect("the Redis configuration is written");
        self.restart().await;
    }

    /// Kills a server with an [append-only file](Self::enable_append_only_file), and starts it
    /// again after a pause with what it is to restore.
    pub async fn crash(&mut self, recovery: CrashRecovery, pause: Duration) {
        self.node.kill();
        let folder = self.node.folder();
        let (current, earlier) = (folder.join(APPEND_ONLY_FOLDER), folder.join("earlier"));
        match recovery {
            CrashRecovery::AppendOnlyFile => {
                remove_folder(&earlier);
                copy_folder(&current, &earlier);
            }
            CrashRecovery::EarlierCopy if earlier.is_dir() => {
                remove_folder(&current);
                copy_folder(&earlier, &current);
            }
            CrashRecovery::EarlierCopy | CrashRecovery::Empty => remove_folder(&current),
        }
        tokio::time::sleep(pause).await;
        self.restart().await;
    }

    /// What it has logged.
    pub fn logs(&self) -> String {
        self.node.logs()
    }
}

fn remove_folder(folder: &Path) {
    if folder.is_dir() {
        fs::remove_dir_all(folder).expect("the files of Redis are removed");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder for the files of Redis");
    for file in fs::read_dir(from).expect("the files of Redis") {
        let file = file.expect("a file of Redis");
        fs::copy(file.path(), to.join(file.file_name())).expect("a file of Redis is copied");
    }
}

/// Opens a connection to this Redis URL.
pub async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a Redis URL");
    let connection = client.get_multiplexed_async_connection().await;
    connection.unwrap_or_else(|error| panic!("the story's Redis cannot be reached: {error}"))
}
