//! One private Postgres for all stories of a test process: made when the first one asks, gone with the
//! process. Every story gets a database of its own, copied from a template that `runcastd migrate` made.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use crate::eventually::eventually_within;
use crate::process::{Process, Recipe};
use crate::programs;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// Name of the migrated database that every story's database is a copy of.
const TEMPLATE: &str = "runcast_template";

/// Longest wait for a cluster to remove itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for a new cluster to answer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The private Postgres.
#[derive(Debug)]
pub struct Cluster {
    process: Mutex<Process>,
    port: u16,
    password: String,
    logs: PathBuf,
    copying: Mutex<()>,
}

impl Cluster {
    /// The cluster of this test process.
    pub async fn shared() -> &'static Self {
        CLUSTER.get_or_init(Self::start).await
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database in it, reached through `port`.
    #[must_use]
    pub fn url(&self, database: &str, port: u16) -> String {
        let password = &self.password;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// Makes a migrated database and gives its name.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create_database(&self) -> String {
        let name = format!("story_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        let _one_at_a_time = self.copying.lock().await;
        self.administer(&create).await;
        name
    }

    async fn administer(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres", self.port))
            .await
            .expect("a connection to the private Postgres");
        let done = connection.execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.expect("the connection closes");
    }

    async fn start() -> Self {
        let base = std::env::temp_dir();
        // The process removes the folder itself when it ends, since it ends after us.
        let folder = base.join(format!("runcast-postgres-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)
            .unwrap_or_else(|error| panic!("{} cannot be made: {error}", folder.display()));
        let password = Uuid::new_v4().simple().to_string();
        let mut private = OpenOptions::new();
        let mut file = private
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join("password"))
            .expect("the password file is made");
        file.write_all(password.as_bytes())
            .expect("the password file is written");

        let port = programs::free_port();
        let programs = programs::postgres_folder();
        let text = |path: &PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let arguments = [
            "-c",
            include_str!("cluster.sh"),
            "cluster",
            &text(&folder),
            &port.to_string(),
            &text(&programs),
        ];
        let mut recipe = Recipe::new("postgres", "/bin/sh", &arguments, &base);
        recipe.at_our_death = "TERM";
        let cluster = Self {
            process: Mutex::new(recipe.start(&folder)),
            port,
            password,
            logs: folder,
            copying: Mutex::new(()),
        };
        cluster.answers().await;
        cluster.migrate().await;
        cluster
    }

    async fn answers(&self) {
        let url = self.url("postgres", self.port);
        eventually_within(START_DEADLINE, "the private Postgres answers", async || {
            let mut process = self.process.lock().await;
            if let Some(status) = process.exited() {
                panic!("the private Postgres ended ({status}) before it was ready");
            }
            match PgConnection::connect(&url).await {
                Ok(connection) => Ok(connection.close().await),
                Err(error) => Err(format!("{error}\n{}", process.logs())),
            }
        })
        .await
        .expect("the connection closes");
    }

    async fn migrate(&self) {
        self.administer(&format!("CREATE DATABASE {TEMPLATE}"))
            .await;
        let url = self.url(TEMPLATE, self.port);
        let recipe = Recipe::new("migrate", programs::runcastd(), &["migrate"], &self.logs)
            .with([("DATABASE_URL", url.as_str())]);
        let mut migrate = recipe.start(&self.logs);
        let status = migrate.ended(START_DEADLINE).await;
        assert!(
            status.success(),
            "runcastd migrate failed ({status})\n{}",
            migrate.logs()
        );
    }
}

impl Drop for Cluster {
    /// Only for one that could not be used: a good one lives as long as the test process.
    fn drop(&mut self) {
        let process = self.process.get_mut();
        process.signal(Signal::SIGTERM);
        let start = Instant::now();
        while process.exited().is_none() && start.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
