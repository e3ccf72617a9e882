//! One Redis server among several: a master, a replica, a node of a cluster or a sentinel; with TLS if its
//! fleet has an authority. A [`Fleet`] is what they share: passwords, keys, a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use runcast_common::config::{Ca, RedisUrl};
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::{Keys, Slot};
use uuid::Uuid;

use crate::authority::Authority;
use crate::eventually::eventually_within;
use crate::process::{Process, Recipe};
use crate::programs;

/// Longest wait for a new server to answer, or for servers to agree.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(20);

/// How many ports are tried, should somebody else take one between choosing and binding it.
const ATTEMPTS: usize = 5;

/// What servers of one installation share.
#[derive(Debug, Clone)]
pub struct Fleet {
    folder: PathBuf,
    rules: String,
    authority: Option<Authority>,
    /// Of the user `default`, for services.
    pub(crate) password: String,
    /// Of the user `publisher`, for agents.
    pub(crate) publisher_password: String,
}

impl Fleet {
    /// Servers with files in `folder`, whose agents may touch the keys of one installation.
    ///
    /// # Panics
    /// If the folder cannot be used.
    #[must_use]
    pub fn new(folder: &Path, keys: &Keys, with_tls: bool) -> Self {
        let password = || Uuid::new_v4().simple().to_string();
        Self {
            folder: folder.to_owned(),
            rules: keys.publisher_acl().join(" "),
            authority: with_tls.then(|| Authority::new(folder)),
            password: password(),
            publisher_password: password(),
        }
    }

    /// The file to be trusted, if there is TLS.
    #[must_use]
    pub fn ca(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(Authority::ca)
    }

    /// `redis`, or `rediss` with TLS.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.authority.is_some() {
            "rediss"
        } else {
            "redis"
        }
    }

    /// Credentials of services and of agents, as they stand in an address.
    pub(crate) fn users(&self) -> [String; 2] {
        [
            format!("default:{}", self.password),
            format!("publisher:{}", self.publisher_password),
        ]
    }

    /// The addresses of one server, for services and for agents.
    #[must_use]
    pub fn urls(&self, node: &Node) -> [String; 2] {
        let (scheme, port) = (self.scheme(), node.port());
        self.users()
            .map(|user| format!("{scheme}://{user}@127.0.0.1:{port}/0"))
    }

    /// What every server that holds data is configured with.
    fn data_lines(&self) -> String {
        format!(
            "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\nmasteruser default\nmasterauth {0}\n\
             user default on >{0} ~* &* +@all\nuser publisher on >{1} {2}\n",
            self.password, self.publisher_password, self.rules
        )
    }

    /// A way to this address that trusts the authority.
    ///
    /// # Panics
    /// If the address makes no sense.
    #[must_use]
    pub fn redis(&self, address: &str) -> Redis {
        let url: RedisUrl = address.parse().expect("an address of Redis");
        let read = |path| fs::read_to_string(path).expect("the authority's file");
        let ca: Option<Ca> = self
            .ca()
            .map(|path| read(path).parse().expect("an authority"));
        Redis::new(&url.trusting(ca)).expect("an address of Redis that can be used")
    }

    /// Starts a server for data; `more` gives further lines of its configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(&self, name: &str, more: impl Fn(u16) -> String) -> Node {
        let user = &self.users()[0];
        let lines = |port| format!("{}{}", self.data_lines(), more(port));
        self.start_any(name, &[], user, lines).await
    }

    /// Starts a sentinel, whose services speak as `user`.
    pub(crate) async fn start_sentinel(&self, name: &str, user: &str, lines: &str) -> Node {
        self.start_any(name, &["--sentinel"], user, |_port| lines.to_owned())
            .await
    }

    async fn start_any(
        &self,
        name: &str,
        arguments: &[&str],
        user: &str,
        lines: impl Fn(u16) -> String,
    ) -> Node {
        let mut logs = String::new();
        for _ in 0..ATTEMPTS {
            let port = programs::free_port();
            let listen = match &self.authority {
                Some(authority) => authority.redis_lines(port),
                None => format!("port {port}\n"),
            };
            let folder = self.folder.join(format!("{name}-{port}"));
            fs::create_dir_all(&folder).expect("a folder for a server");
            let config = format!(
                "bind 127.0.0.1\ndir {}\n{listen}{}",
                folder.display(),
                lines(port)
            );
            fs::write(folder.join("redis.conf"), config).expect("a Redis configuration is written");
            let arguments = [&["redis.conf"], arguments].concat();
            let process =
                Recipe::new(name, "redis-server", &arguments, &folder).start(&self.folder);
            let admin = self.redis(&format!("{}://{user}@127.0.0.1:{port}", self.scheme()));
            let mut node = Node {
                process,
                port,
                admin,
            };
            if node.answers().await {
                return node;
            }
            logs = node.process.logs();
        }
        panic!("{name} did not start on any of {ATTEMPTS} ports\n{logs}")
    }
}

/// One running server.
#[derive(Debug)]
pub struct Node {
    process: Process,
    port: u16,
    admin: Redis,
}

impl Node {
    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it by SIGKILL; what it held is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a command to this very server.
    ///
    /// # Panics
    /// If it fails.
    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let answer = self.try_ask(command).await;
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.process.logs()))
    }

    /// The same, with an error for an answer.
    ///
    /// # Errors
    /// What the server said, or why it did not.
    pub async fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T, String> {
        let [name, arguments @ ..] = command else {
            return Err("no command".into());
        };
        let mut built = Cmd::new();
        built.arg(name).arg(arguments);
        let answer = self.admin.query(Slot::of(""), &built).await;
        answer.map_err(|error| error.to_string())
    }

    /// True once it answers, false if it ended instead.
    async fn answers(&mut self) -> bool {
        let what = format!("{} answers", self.process.name());
        eventually_within(START_DEADLINE, &what, async || {
            if self.process.exited().is_some() {
                return Ok(false);
            }
            let pong = self.try_ask::<String>(&["PING"]).await;
            pong.map(|_| true)
                .map_err(|error| format!("{error}\n{}", self.process.logs()))
        })
        .await
    }
}
