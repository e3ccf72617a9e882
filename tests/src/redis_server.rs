//! The Redis server of one story: a single [`RedisNode`] with the user `default` for services.
//! Agents get users from the gateway, or here by [`RedisServer::run_user`].

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use runcast_common::config::RedisUrl;
use runcast_common::protocol::keys::Keys;
use runcast_common::run_users::{RunUser, RunUsers};
use uuid::Uuid;

use crate::redis_node::{CONFIG_FILE, RedisDeployment, RedisNode};

/// The SHA-256 of `password`.
const HASH_OF_PASSWORD: [u8; 32] = [
    0x5e, 0x88, 0x48, 0x98, 0xda, 0x28, 0x04, 0x71, 0x51, 0xd0, 0xe5, 0x6f, 0x8d, 0xc6, 0x29, 0x27,
    0x73, 0x60, 0x3d, 0x0d, 0x6a, 0xab, 0xbd, 0xd6, 0x2a, 0x11, 0xef, 0x72, 0x1d, 0x15, 0x42, 0xd8,
];

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
    /// Starts a server with files in `folder`.
    pub async fn start(folder: &Path) -> Self {
        let deployment = RedisDeployment::new(folder, false);
        let node = deployment.start_node("redis", |_port| String::new()).await;
        Self { deployment, node }
    }

    /// A server with these further lines of configuration, and with an address, that does not run
    /// before its first [restart](Self::restart).
    pub fn stopped(folder: &Path, config: &str) -> Self {
        let deployment = RedisDeployment::new(folder, false);
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

    /// The URL for agents, reached through `port`: without a user.
    pub fn publisher_url(&self, port: u16) -> String {
        let [_services, agents] = self.deployment.urls_at(port);
        agents
    }

    /// A connection with all rights.
    pub async fn connection(&self) -> MultiplexedConnection {
        connect(&self.url(self.port())).await
    }

    /// Creates the user of a run as a gateway does, and returns the URL with it.
    pub async fn run_user(&self, keys: &Keys, run: Uuid) -> String {
        let services = self.deployment.client(&self.url(self.port()));
        let users = RunUsers::new(services, keys.clone());
        let user = RunUser { run, token: [7; 8] };
        let created = users.create(&user, &HASH_OF_PASSWORD).await;
        created.expect("a user is created");
        let url: RedisUrl = self.publisher_url(self.port()).parse().expect("a URL");
        url.with_user(&users.name(&user), "password")
            .expose()
            .to_owned()
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
