//! One `redis-server` process: a standalone server, a master, a replica, a node of a cluster or a
//! sentinel. A [`RedisDeployment`] holds what the servers of one installation share: passwords,
//! keys, a folder, and a certificate authority if they speak TLS. It starts all of them; nothing
//! else in the tests starts `redis-server`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use runcast_common::config::{Ca, RedisUrl};
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Slot;
use uuid::Uuid;

use crate::certificate_authority::CertificateAuthority;
use crate::eventually::eventually_within;
use crate::process::{Process, ProcessSpec};
use crate::programs;

/// Longest wait for a new server to answer, or for servers to agree.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(20);

/// How many ports are tried, in case another process takes one between choosing and binding it.
const MAX_PORT_ATTEMPTS: usize = 5;

/// The configuration file of each server, in its folder.
pub(crate) const CONFIG_FILE: &str = "redis.conf";

/// What the servers of one installation share.
#[derive(Debug, Clone)]
pub struct RedisDeployment {
    folder: PathBuf,
    authority: Option<CertificateAuthority>,
    /// Of the user `default`, for services.
    pub(crate) password: String,
    /// Of the user `publisher` of sentinels, for agents.
    pub(crate) sentinel_password: String,
}

impl RedisDeployment {
    /// Servers with files in `folder`.
    pub fn new(folder: &Path, with_tls: bool) -> Self {
        let password = || Uuid::new_v4().simple().to_string();
        Self {
            folder: folder.to_owned(),
            authority: with_tls.then(|| CertificateAuthority::new(folder)),
            password: password(),
            sentinel_password: password(),
        }
    }

    /// The certificate file that clients must trust, if there is TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(CertificateAuthority::ca)
    }

    /// `redis`, or `rediss` with TLS.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.authority.is_some() {
            "rediss"
        } else {
            "redis"
        }
    }

    /// `<user>:<password>` of services.
    pub(crate) fn services_user(&self) -> String {
        format!("default:{}", self.password)
    }

    /// The URLs of one server, for services and for agents: these get users from the gateway.
    pub fn urls(&self, node: &RedisNode) -> [String; 2] {
        self.urls_at(node.port())
    }

    /// The same, reached through `port`.
    pub(crate) fn urls_at(&self, port: u16) -> [String; 2] {
        let (scheme, user) = (self.scheme(), self.services_user());
        [format!("{user}@"), String::new()]
            .map(|user| format!("{scheme}://{user}127.0.0.1:{port}/0"))
    }

    /// The configuration that all servers with data have in common.
    fn data_config(&self) -> String {
        format!(
            "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\nmasteruser default\nmasterauth {0}\n\
             user default on >{0} ~* &* +@all\n",
            self.password
        )
    }

    /// A client of this URL that trusts the certificate authority.
    pub fn client(&self, url: &str) -> Redis {
        let url: RedisUrl = url.parse().expect("a Redis URL");
        let read = |path| fs::read_to_string(path).expect("the authority's file");
        let ca: Option<Ca> = self
            .ca()
            .map(|path| read(path).parse().expect("a certificate authority"));
        Redis::new(&url.trusting(ca)).expect("a usable Redis URL")
    }

    /// Starts a server for data; `more` gives further lines of its configuration.
    pub async fn start_node(&self, name: &str, more: impl Fn(u16) -> String) -> RedisNode {
        let user = &self.services_user();
        let config = |port| format!("{}{}", self.data_config(), more(port));
        self.start(name, &[], user, config).await
    }

    /// Starts a sentinel; services connect to it as `user`.
    pub(crate) async fn start_sentinel(&self, name: &str, user: &str, config: &str) -> RedisNode {
        self.start(name, &["--sentinel"], user, |_port| config.to_owned())
            .await
    }

    async fn start(
        &self,
        name: &str,
        arguments: &[&str],
        user: &str,
        config: impl Fn(u16) -> String,
    ) -> RedisNode {
        let mut logs = String::new();
        for _ in 0..MAX_PORT_ATTEMPTS {
            let mut node = self.prepare(name, arguments, user, &config);
            if node.launch().await {
                return node;
            }
            logs = node.logs();
        }
        panic!("{name} did not start on any of {MAX_PORT_ATTEMPTS} ports\n{logs}")
    }

    /// A server for data that does not run yet. `more` gives further lines of its configuration.
    pub(crate) fn prepare_node(&self, name: &str, more: &str) -> RedisNode {
        let user = &self.services_user();
        self.prepare(name, &[], user, |_port| {
            format!("{}{more}", self.data_config())
        })
    }

    /// Chooses a port, and writes the configuration.
    fn prepare(
        &self,
        name: &str,
        arguments: &[&str],
        user: &str,
        config: impl Fn(u16) -> String,
    ) -> RedisNode {
        let port = programs::free_port();
        let listen = match &self.authority {
            Some(authority) => authority.redis_config(port),
            None => format!("port {port}\n"),
        };
        let folder = self.folder.join(format!("{name}-{port}"));
        fs::create_dir_all(&folder).expect("a folder for a Redis server");
        let config = format!(
            "bind 127.0.0.1\ndir {}\n{listen}{}",
            folder.display(),
            config(port)
        );
        fs::write(folder.join(CONFIG_FILE), config).expect("a Redis configuration is written");
        let arguments = [&[CONFIG_FILE], arguments].concat();
        RedisNode {
            process: None,
            spec: ProcessSpec::new(name, "redis-server", &arguments, &folder),
            logs_folder: self.folder.clone(),
            port,
            client: self.client(&format!("{}://{user}@127.0.0.1:{port}", self.scheme())),
        }
    }
}

/// One server process; it ends when dropped.
#[derive(Debug)]
pub struct RedisNode {
    /// None before its first start.
    process: Option<Process>,
    spec: ProcessSpec,
    logs_folder: PathBuf,
    port: u16,
    client: Redis,
}

impl RedisNode {
    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().expect("a started server").id()
    }

    /// The folder of its configuration and data.
    pub(crate) fn folder(&self) -> &Path {
        &self.spec.folder
    }

    /// What it has logged.
    pub(crate) fn logs(&self) -> String {
        self.process.as_ref().map(Process::logs).unwrap_or_default()
    }

    /// Ends it by SIGKILL. What it held in memory is lost.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Kills it if it runs, and starts it again with the same configuration.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        assert!(
            self.launch().await,
            "{} does not start: {}",
            self.spec.name,
            self.logs()
        );
    }

    /// Starts it, and waits for an answer. True once it answers, false if it ended instead.
    async fn launch(&mut self) -> bool {
        let process = self.process.insert(self.spec.start(&self.logs_folder));
        let what = format!("{} answers", process.name());
        eventually_within(START_DEADLINE, &what, async || {
            if self
                .process
                .as_mut()
                .is_some_and(|process| process.try_wait().is_some())
            {
                return Ok(false);
            }
            let pong = self.try_query::<String>(&["PING"]).await;
            pong.map(|_| true)
                .map_err(|error| format!("{error}\n{}", self.logs()))
        })
        .await
    }

    /// Sends a command to this very server.
    pub async fn query<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let reply = self.try_query(command).await;
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.logs()))
    }

    /// The same; a failure is an error.
    ///
    /// # Errors
    /// The error reply, or why there was no reply.
    pub async fn try_query<T: FromRedisValue>(&self, command: &[&str]) -> Result<T, String> {
        let [name, arguments @ ..] = command else {
            return Err("no command".into());
        };
        let mut built = Cmd::new();
        built.arg(name).arg(arguments);
        let reply = self.client.query(Slot::of(""), &built).await;
        reply.map_err(|error| error.to_string())
    }
}
