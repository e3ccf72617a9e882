//! One installation of its own for one story: Redis, a database, and the three services as processes,
//! each of which a story may kill, stop, and start again elsewhere or behind a [`Chaos`] proxy.
//!
//! At the end of a story that went well the stack checks that no service ended by itself, that no
//! event is left unstored, and that every service stops when asked. When a story fails, the logs of
//! all its processes are printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::keys::Keys;
use tempfile::TempDir;
use uuid::Uuid;

use crate::api::Api;
use crate::chaos::Chaos;
use crate::cluster::Cluster;
use crate::database::Database;
use crate::last_look;
pub use crate::part::Part;
use crate::process::{Process, Recipe};
use crate::programs;
use crate::redis_server::RedisServer;

/// Longest wait for a service to be ready, or to stop.
const TURN_DEADLINE: Duration = Duration::from_secs(30);

/// Limits that no story reaches unless it sets its own.
const GENEROUS: &str = "write=1000000/min,read=1000000/min,search=1000000/min,ingest=1000000/min,\
     sign-in=1000000/min,failed=1000000/min,publish=512MiB/s,streams=off,streams-by-address=off";

/// One installation.
#[derive(Debug)]
pub struct Stack {
    parts: BTreeMap<Part, Process>,
    commands: Vec<String>,
    settings: BTreeMap<(Part, &'static str), String>,
    token: String,
    gateway_url: String,
    keys: Keys,
    /// Its Redis.
    pub redis: RedisServer,
    /// Its database, for looking at it.
    pub database: Database,
    database_name: String,
    /// The Postgres that holds the database: shared with other stories, unless the stack was started
    /// [on one of its own](Self::on).
    pub cluster: Arc<Cluster>,
    folder: TempDir,
    /// Outlive the services, which may be connected through them when they are asked to stop.
    proxies: Vec<Arc<Chaos>>,
}

impl Stack {
    /// Starts everything.
    pub async fn start() -> Self {
        let mut stack = Self::without_services().await;
        stack.launch_all().await;
        stack
    }

    /// Prepares Redis, a migrated database and a token; services are to be launched.
    ///
    /// # Panics
    /// If that fails.
    pub async fn without_services() -> Self {
        Self::on(Cluster::shared().await).await
    }

    /// The same on this Postgres.
    ///
    /// # Panics
    /// If that fails.
    pub async fn on(cluster: Arc<Cluster>) -> Self {
        let database_name = cluster.create_database().await;
        let folder = TempDir::with_prefix("runcast-story-").expect("a temporary folder");
        let prefix = format!("story-{}:", &Uuid::new_v4().simple().to_string()[..8]);
        let keys = Keys::new(&prefix);
        let redis = RedisServer::start(folder.path(), &keys).await;
        let database = Database::connect(&cluster.url(&database_name, cluster.port())).await;
        let mut stack = Self {
            parts: BTreeMap::new(),
            commands: Vec::new(),
            settings: BTreeMap::new(),
            token: String::new(),
            gateway_url: String::new(),
            keys,
            redis,
            database,
            database_name,
            cluster,
            folder,
            proxies: Vec::new(),
        };
        stack.token = stack.mint("admin").await;
        stack
    }

    /// Spells the keys of this stack.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The admin token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A folder for whatever a story needs, gone at its end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port of the Postgres that holds the database.
    #[must_use]
    pub fn database_port(&self) -> u16 {
        self.cluster.port()
    }

    /// The address of the database, reached through `port`.
    #[must_use]
    pub fn database_url(&self, port: u16) -> String {
        self.cluster.url(&self.database_name, port)
    }

    /// Puts a proxy before the Redis of this stack.
    pub async fn chaos_before_redis(&mut self) -> Arc<Chaos> {
        self.chaos_before(self.redis.port()).await
    }

    /// Puts a proxy before the Postgres of this stack.
    pub async fn chaos_before_postgres(&mut self) -> Arc<Chaos> {
        self.chaos_before(self.cluster.port()).await
    }

    /// Puts a proxy before another server that this stack uses.
    pub async fn chaos_before_port(&mut self, port: u16) -> Arc<Chaos> {
        self.chaos_before(port).await
    }

    async fn chaos_before(&mut self, port: u16) -> Arc<Chaos> {
        let chaos = Arc::new(Chaos::before(port).await);
        self.proxies.push(Arc::clone(&chaos));
        chaos
    }

    /// A client of the gateway.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.gateway_url, &self.token)
    }

    /// Gives a service a setting of its own, from its next launch on.
    pub fn set(&mut self, part: Part, name: &'static str, value: impl Into<String>) {
        self.settings.insert((part, name), value.into());
    }

    /// Gives all services another Redis than the stack's own: the addresses for services and for agents,
    /// and the file with the authority that is to be trusted.
    pub fn use_redis(&mut self, [services, agents]: [String; 2], ca: Option<&Path>) {
        for part in Part::ALL {
            self.set(part, "REDIS_URL", services.clone());
            self.set(part, "RUNCAST_PUBLISH_REDIS_URL", agents.clone());
            if let Some(ca) = ca {
                self.set(part, "RUNCAST_REDIS_CA", ca.display().to_string());
            }
        }
    }

    /// Launches all services.
    pub async fn launch_all(&mut self) {
        for part in Part::ALL {
            self.launch(part).await;
        }
    }

    /// Takes such a setting back, from the service's next launch on.
    pub fn unset(&mut self, part: Part, name: &'static str) {
        self.settings.remove(&(part, name));
    }

    /// How a service is started.
    #[must_use]
    pub fn recipe(&self, part: Part) -> Recipe {
        let own = self.settings.iter().filter(|((of, _), _)| *of == part);
        let own = own.map(|(&(_, name), value)| (name.to_owned(), value.clone()));
        self.runcastd(part.name(), &[part.name()]).with(own)
    }

    /// How an operator starts `runcastd` with these arguments.
    #[must_use]
    pub fn operator(&self, arguments: &[&str]) -> Recipe {
        self.runcastd("operator", arguments)
    }

    fn runcastd(&self, name: &str, arguments: &[&str]) -> Recipe {
        let redis = self.redis.port();
        Recipe::new(name, programs::runcastd(), arguments, self.folder()).with([
            ("DATABASE_URL", self.database_url(self.cluster.port())),
            ("REDIS_URL", self.redis.url(redis)),
            ("RUNCAST_PUBLISH_REDIS_URL", self.redis.publisher_url(redis)),
            ("RUNCAST_KEY_PREFIX", self.keys.prefix().to_owned()),
            ("RUNCAST_LISTEN", "127.0.0.1:0".to_owned()),
            ("RUNCAST_LIMITS", GENEROUS.to_owned()),
            ("RUNCAST_LOG_FORMAT", "text".to_owned()),
        ])
    }

    /// What `runcastd check` says with the gateway's settings, on both outputs.
    pub async fn check(&self) -> String {
        let own = self.recipe(Part::Gateway).environment;
        let mut check = self
            .runcastd("check", &["check"])
            .with(own)
            .start(self.folder());
        check.ended(TURN_DEADLINE).await;
        check.logs()
    }

    /// Launches a service and waits until it is ready. A gateway keeps its port over a restart.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn launch(&mut self, part: Part) {
        assert!(
            !self.parts.contains_key(&part),
            "{} runs already",
            part.name()
        );
        let listen = (Part::Gateway, "RUNCAST_LISTEN");
        if part == Part::Gateway
            && self.settings.contains_key(&(part, "RUNCAST_PUBLIC_URL"))
            && !self.settings.contains_key(&listen)
        {
            // It does not say then where it listens.
            let port = programs::free_port();
            self.settings.insert(listen, format!("127.0.0.1:{port}"));
        }
        let mut process = self.recipe(part).start(self.folder());
        let rest = process.says(part.ready_line(), TURN_DEADLINE).await;
        if part == Part::Gateway {
            let known = self.settings.entry(listen);
            let address = known.or_insert_with(|| {
                let said = rest.strip_prefix("http://");
                said.expect("the gateway's address").to_owned()
            });
            self.gateway_url = format!("http://{address}");
        }
        self.parts.insert(part, process);
    }

    /// The process of a service.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn process_id(&self, part: Part) -> u32 {
        let process = self.parts.get(&part);
        process
            .unwrap_or_else(|| panic!("{} was not launched", part.name()))
            .id()
    }

    /// Ends a service with SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, part: Part) {
        self.take(part).kill();
    }

    /// Asks a service to stop and waits until it has.
    ///
    /// # Panics
    /// If it does not stop in time or not with exit code 0.
    pub async fn stop(&mut self, part: Part) {
        let mut process = self.take(part);
        process.signal(Signal::SIGTERM);
        let status = process.ended(TURN_DEADLINE).await;
        assert!(
            status.success(),
            "{} was asked to stop and ended with {status}",
            part.name()
        );
    }

    /// What a running service has said so far.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn logs(&self, part: Part) -> String {
        let process = self.parts.get(&part);
        process
            .unwrap_or_else(|| panic!("{} was not launched", part.name()))
            .logs()
    }

    fn take(&mut self, part: Part) -> Process {
        let process = self.parts.remove(&part);
        let mut process = process.unwrap_or_else(|| panic!("{} was not launched", part.name()));
        if let Some(status) = process.exited() {
            panic!("{} should run, and ended by itself ({status})", part.name());
        }
        process
    }

    /// Starts `runcast` with these arguments and settings.
    #[must_use]
    pub fn runcast(&mut self, arguments: &[&str], settings: &[(&str, &str)]) -> Process {
        let name = format!("runcast-{}", self.commands.len() + 1);
        let recipe = Recipe::new(&name, programs::runcast(), arguments, self.folder())
            .with([
                ("RUNCAST_URL", self.gateway_url.as_str()),
                ("RUNCAST_TOKEN", &self.token),
            ])
            .with(settings.iter().copied());
        self.commands.push(name);
        recipe.start(self.folder())
    }

    /// Starts `runcast wrap` for a run, with this command.
    #[must_use]
    pub fn wrap(&mut self, run: Uuid, command: &[&str]) -> Process {
        self.wrap_with(run, command, &[])
    }

    /// As [`Stack::wrap`], with settings.
    #[must_use]
    pub fn wrap_with(&mut self, run: Uuid, command: &[&str], settings: &[(&str, &str)]) -> Process {
        let run = run.to_string();
        let mut arguments = vec!["wrap", "--run", &run, "--"];
        arguments.extend_from_slice(command);
        self.runcast(&arguments, settings)
    }

    /// Makes a token of this scope, as an operator does.
    ///
    /// # Panics
    /// If there is none.
    pub async fn mint(&self, scope: &str) -> String {
        let arguments = ["token", "create", "story", "--scope", scope];
        let mut process = self.runcastd("token", &arguments).start(self.folder());
        let status = process.ended(TURN_DEADLINE).await;
        assert!(
            status.success(),
            "no token could be made\n{}",
            process.logs()
        );
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
            last_look::judge(&mut self.parts, &self.redis, &self.keys)
        };
        if let Err(reason) = verdict {
            last_look::print_logs(self.folder.path());
            if !std::thread::panicking() {
                panic!("the story went well, but {reason}");
            }
        }
    }
}
