//! One installation for one story: Redis, a database, and the three services as processes. A story
//! may kill, stop and restart each of them, also with other settings or behind a [`ChaosProxy`].
//!
//! At the end of a successful story the stack checks that no service ended by itself, that all
//! events are stored, and that every service stops on SIGTERM. When a story fails, the logs of all
//! its processes are printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::keys::Keys;
use tempfile::TempDir;
use uuid::Uuid;

use crate::api::Api;
use crate::chaos::ChaosProxy;
use crate::database::Database;
use crate::postgres::PostgresServer;
use crate::process::{Process, ProcessSpec};
use crate::programs;
use crate::redis_server::RedisServer;
pub use crate::service::Service;
use crate::teardown;

/// Longest wait for a service to become ready, or to stop.
const SERVICE_DEADLINE: Duration = Duration::from_secs(30);

/// Limits that no story reaches unless it sets lower ones.
const UNLIMITED_RATES: &str = "write=1000000/min,read=1000000/min,search=1000000/min,ingest=1000000/min,\
     sign-in=1000000/min,failed=1000000/min,publish=512MiB/s,streams=off,streams-by-address=off";

/// One installation.
#[derive(Debug)]
pub struct Stack {
    services: BTreeMap<Service, Process>,
    commands: Vec<String>,
    settings: BTreeMap<(Service, &'static str), String>,
    token: String,
    gateway_url: String,
    keys: Keys,
    /// Its Redis.
    pub redis: RedisServer,
    /// Its database, for direct queries.
    pub database: Database,
    database_name: String,
    /// The Postgres server of the database. Stories share it, unless the stack was started [with
    /// its own](Self::with_postgres).
    pub postgres: Arc<PostgresServer>,
    folder: TempDir,
    /// Must outlive the services, which may be connected through them when they are stopped.
    proxies: Vec<Arc<ChaosProxy>>,
}

impl Stack {
    /// Starts all services.
    pub async fn start() -> Self {
        let mut stack = Self::without_services().await;
        stack.start_all().await;
        stack
    }

    /// Prepares Redis, a migrated database and a token, but starts no services.
    pub async fn without_services() -> Self {
        Self::with_postgres(PostgresServer::shared().await).await
    }

    /// The same with this Postgres.
    pub async fn with_postgres(postgres: Arc<PostgresServer>) -> Self {
        let database_name = postgres.create_database().await;
        let folder = TempDir::with_prefix("runcast-story-").expect("a temporary folder");
        let prefix = format!("story-{}:", &Uuid::new_v4().simple().to_string()[..8]);
        let keys = Keys::new(&prefix);
        let redis = RedisServer::start(folder.path()).await;
        let database = Database::connect(&postgres.url(&database_name, postgres.port())).await;
        let mut stack = Self {
            services: BTreeMap::new(),
            commands: Vec::new(),
            settings: BTreeMap::new(),
            token: String::new(),
            gateway_url: String::new(),
            keys,
            redis,
            database,
            database_name,
            postgres,
            folder,
            proxies: Vec::new(),
        };
        stack.token = stack.create_token("admin").await;
        stack
    }

    /// The name of its database.
    pub fn database_name(&self) -> &str {
        &self.database_name
    }

    /// Connects to its database again, after that was made anew.
    pub async fn reconnect_database(&mut self) {
        let url = self.database_url(self.postgres.port());
        self.database = Database::connect(&url).await;
    }

    /// The Redis keys of this stack.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A folder for files of the story, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port of the Postgres server.
    pub fn database_port(&self) -> u16 {
        self.postgres.port()
    }

    /// The URL of the database, reached through `port`.
    pub fn database_url(&self, port: u16) -> String {
        self.postgres.url(&self.database_name, port)
    }

    /// Starts a proxy in front of the Redis of this stack.
    pub async fn proxy_redis(&mut self) -> Arc<ChaosProxy> {
        self.add_proxy(self.redis.port()).await
    }

    /// Starts a proxy on the way that `runcast` publishes by. Returns it with the setting that
    /// leads there, and with bytes that are in each append.
    pub async fn proxy_agent(
        &mut self,
    ) -> (Arc<ChaosProxy>, (&'static str, String), &'static [u8]) {
        if test_transport() == "gateway" {
            let port = self.gateway_url.rsplit(':').next();
            let port = port.and_then(|port| port.parse().ok());
            let chaos = self.add_proxy(port.expect("the gateway's port")).await;
            let url = format!("http://127.0.0.1:{}", chaos.port());
            (chaos, ("RUNCAST_URL", url), b"/append HTTP")
        } else {
            let chaos = self.proxy_redis().await;
            let url = self.redis.publisher_url(chaos.port());
            (chaos, ("REDIS_URL", url), b"EVALSHA")
        }
    }

    /// Starts a proxy in front of the Postgres of this stack.
    pub async fn proxy_postgres(&mut self) -> Arc<ChaosProxy> {
        self.add_proxy(self.postgres.port()).await
    }

    /// Starts a proxy in front of another server that this stack uses.
    pub async fn proxy_port(&mut self, port: u16) -> Arc<ChaosProxy> {
        self.add_proxy(port).await
    }

    async fn add_proxy(&mut self, port: u16) -> Arc<ChaosProxy> {
        let chaos = Arc::new(ChaosProxy::start(port).await);
        self.proxies.push(Arc::clone(&chaos));
        chaos
    }

    /// A client of the gateway.
    pub fn api(&self) -> Api {
        Api::new(&self.gateway_url, &self.token)
    }

    /// Sets an environment variable of a service, effective from its next start.
    pub fn set(&mut self, service: Service, name: &'static str, value: impl Into<String>) {
        self.settings.insert((service, name), value.into());
    }

    /// Configures all services for another Redis: its URLs for services and for agents, and the
    /// file with the certificate authority to trust.
    pub fn use_redis(&mut self, [services, agents]: [String; 2], ca: Option<&Path>) {
        for service in Service::ALL {
            self.set(service, "REDIS_URL", services.clone());
            self.set(service, "RUNCAST_PUBLISH_REDIS_URL", agents.clone());
            if let Some(ca) = ca {
                self.set(service, "RUNCAST_REDIS_CA", ca.display().to_string());
            }
        }
    }

    /// Starts all services.
    pub async fn start_all(&mut self) {
        for service in Service::ALL {
            self.start_service(service).await;
        }
    }

    /// Removes an environment variable of a service, effective from its next start.
    pub fn unset(&mut self, service: Service, name: &'static str) {
        self.settings.remove(&(service, name));
    }

    /// How a service is started.
    pub fn service_spec(&self, service: Service) -> ProcessSpec {
        let own = self.settings.iter().filter(|((of, _), _)| *of == service);
        let own = own.map(|(&(_, name), value)| (name.to_owned(), value.clone()));
        self.runcastd(service.name(), &[service.name()])
            .with_env(own)
    }

    /// How an operator starts `runcastd` with these arguments.
    pub fn operator_spec(&self, arguments: &[&str]) -> ProcessSpec {
        self.runcastd("operator", arguments)
    }

    /// How an operator starts `runcast-export` with these arguments.
    pub fn export_spec(&self, arguments: &[&str]) -> ProcessSpec {
        self.program("export", programs::runcast_export(), arguments)
    }

    fn runcastd(&self, name: &str, arguments: &[&str]) -> ProcessSpec {
        self.program(name, programs::runcastd(), arguments)
    }

    fn program(&self, name: &str, path: PathBuf, arguments: &[&str]) -> ProcessSpec {
        let redis = self.redis.port();
        ProcessSpec::new(name, path, arguments, self.folder()).with_env([
            ("DATABASE_URL", self.database_url(self.postgres.port())),
            ("REDIS_URL", self.redis.url(redis)),
            ("RUNCAST_PUBLISH_REDIS_URL", self.redis.publisher_url(redis)),
            ("RUNCAST_KEY_PREFIX", self.keys.prefix().to_owned()),
            ("RUNCAST_LISTEN", "127.0.0.1:0".to_owned()),
            ("RUNCAST_LIMITS", UNLIMITED_RATES.to_owned()),
            ("RUNCAST_LOG_FORMAT", "text".to_owned()),
        ])
    }

    /// The output of `runcastd check` with the gateway's settings, stdout and stderr.
    pub async fn check(&self) -> String {
        let own = self.service_spec(Service::Gateway).environment;
        let mut check = self
            .runcastd("check", &["check"])
            .with_env(own)
            .start(self.folder());
        check.wait_exit(SERVICE_DEADLINE).await;
        check.logs()
    }

    /// Starts a service and waits until it is ready. A gateway keeps its port across restarts.
    pub async fn start_service(&mut self, service: Service) {
        assert!(
            !self.services.contains_key(&service),
            "{} runs already",
            service.name()
        );
        let listen = (Service::Gateway, "RUNCAST_LISTEN");
        if service == Service::Gateway
            && self.settings.contains_key(&(service, "RUNCAST_PUBLIC_URL"))
            && !self.settings.contains_key(&listen)
        {
            // With a public URL set, the gateway does not report its listen address.
            let port = programs::free_port();
            self.settings.insert(listen, format!("127.0.0.1:{port}"));
        }
        let mut process = self.service_spec(service).start(self.folder());
        let rest = process
            .wait_for_line(service.ready_line(), SERVICE_DEADLINE)
            .await;
        if service == Service::Gateway {
            let known = self.settings.entry(listen);
            let address = known.or_insert_with(|| {
                let address = rest.strip_prefix("http://");
                address.expect("the gateway's address").to_owned()
            });
            self.gateway_url = format!("http://{address}");
        }
        self.services.insert(service, process);
    }

    /// The process id of a running service.
    pub fn process_id(&self, service: Service) -> u32 {
        let process = self.services.get(&service);
        process
            .unwrap_or_else(|| panic!("{} was not started", service.name()))
            .id()
    }

    /// Ends a service with SIGKILL.
    pub fn kill(&mut self, service: Service) {
        self.take_process(service).kill();
    }

    /// Sends SIGTERM to a service and waits until it has exited with code 0.
    pub async fn stop(&mut self, service: Service) {
        let mut process = self.take_process(service);
        process.signal(Signal::SIGTERM);
        let status = process.wait_exit(SERVICE_DEADLINE).await;
        assert!(
            status.success(),
            "{} exited with {status} on SIGTERM",
            service.name()
        );
    }

    /// The output of a running service so far.
    pub fn logs(&self, service: Service) -> String {
        let process = self.services.get(&service);
        process
            .unwrap_or_else(|| panic!("{} was not started", service.name()))
            .logs()
    }

    fn take_process(&mut self, service: Service) -> Process {
        let process = self.services.remove(&service);
        let mut process = process.unwrap_or_else(|| panic!("{} was not started", service.name()));
        if let Some(status) = process.try_wait() {
            panic!("{} exited unexpectedly ({status})", service.name());
        }
        process
    }

    /// Starts `runcast` with these arguments and environment variables. With
    /// `RUNCAST_TEST_TRANSPORT` in the environment of the tests it publishes that way, so that the
    /// same stories run over both.
    pub fn runcast(&mut self, arguments: &[&str], settings: &[(&str, &str)]) -> Process {
        let name = format!("runcast-{}", self.commands.len() + 1);
        let transport = test_transport();
        let spec = ProcessSpec::new(&name, programs::runcast(), arguments, self.folder())
            .with_env([
                ("RUNCAST_URL", self.gateway_url.as_str()),
                ("RUNCAST_TOKEN", &self.token),
                ("RUNCAST_TRANSPORT", &transport),
            ])
            .with_env(settings.iter().copied());
        self.commands.push(name);
        spec.start(self.folder())
    }

    /// Starts `runcast wrap` of this command for a run.
    pub fn wrap(&mut self, run: Uuid, command: &[&str]) -> Process {
        self.wrap_with(run, command, &[])
    }

    /// The same with environment variables.
    pub fn wrap_with(&mut self, run: Uuid, command: &[&str], settings: &[(&str, &str)]) -> Process {
        let run = run.to_string();
        let mut arguments = vec!["wrap", "--run", &run, "--"];
        arguments.extend_from_slice(command);
        self.runcast(&arguments, settings)
    }

    /// Creates a token of this scope, as an operator does.
    pub async fn create_token(&self, scope: &str) -> String {
        let arguments = ["token", "create", "story", "--scope", scope];
        let mut process = self.runcastd("token", &arguments).start(self.folder());
        let status = process.wait_exit(SERVICE_DEADLINE).await;
        assert!(status.success(), "no token was created\n{}", process.logs());
        let token = String::from_utf8(process.stdout()).expect("a token is text");
        assert_eq!(
            token.lines().count(),
            1,
            "a token alone on stdout: {token:?}"
        );
        token.trim_end().to_owned()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let verdict = if std::thread::panicking() {
            Err("the story failed".to_owned())
        } else {
            teardown::verify_clean_shutdown(&mut self.services, &self.redis, &self.keys)
        };
        if let Err(reason) = verdict {
            teardown::print_logs(self.folder.path());
            if !std::thread::panicking() {
                panic!("the story passed, but {reason}");
            }
        }
    }
}

/// How `runcast` publishes in these stories; empty for its default.
fn test_transport() -> String {
    std::env::var("RUNCAST_TEST_TRANSPORT").unwrap_or_default()
}
