//! One private Postgres for all stories of a test process: started on first use, and stopped with
//! the process. Each story gets a database of its own, copied from a template that `runcastd
//! migrate` has migrated.
//!
//! A story that stops Postgres itself uses a server of its own, which is stopped with the story. As
//! under a service manager, a server that ends is restarted at once, with the recovery it needs.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use crate::eventually::eventually_within;
use crate::process::{Process, ProcessSpec};
use crate::programs;

static SHARED_SERVER: OnceCell<Arc<PostgresServer>> = OnceCell::const_new();

/// The migrated database that every story's database is a copy of.
const TEMPLATE_DATABASE: &str = "runcast_template";

/// Longest wait for a server to stop and remove its files.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for a new server to answer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A private Postgres server.
#[derive(Debug)]
pub struct PostgresServer {
    process: Mutex<Process>,
    port: u16,
    password: String,
    folder: PathBuf,
    copying: Mutex<()>,
}

/// Whether commits survive a crash of the machine, not only of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// They do not: `fsync=off`, fast.
    NoFsync,
    /// They do: `fsync=on`, as in production.
    Fsync,
}

impl PostgresServer {
    /// The shared server of this test process.
    pub async fn shared() -> Arc<Self> {
        let made =
            SHARED_SERVER.get_or_init(async || Arc::new(Self::start(Durability::NoFsync).await));
        Arc::clone(made.await)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one of its databases, reached through `port`.
    pub fn url(&self, database: &str, port: u16) -> String {
        let password = &self.password;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// Creates a migrated database and returns its name.
    pub async fn create_database(&self) -> String {
        let name = format!("story_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE_DATABASE}");
        let _one_at_a_time = self.copying.lock().await;
        self.execute_as_admin(&create).await;
        name
    }

    /// Executes a statement in the database `postgres`.
    pub async fn execute_as_admin(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres", self.port))
            .await
            .expect("a connection to the private Postgres");
        let done = connection.execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.expect("the connection closes");
    }

    /// Ends the server by a signal (SIGKILL: a crash; SIGQUIT: an immediate stop, with the recovery
    /// of a crash; SIGINT: a fast, orderly stop), keeps it down for a pause, and waits until it
    /// accepts connections again.
    pub async fn restart(&self, signal: Signal, pause: Duration) {
        let down = self.folder.join("down");
        std::fs::write(&down, []).expect("a file in the folder of Postgres");
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let file = file.expect("the running server's file");
        let id = file.lines().next().and_then(|line| line.parse().ok());
        let server = Pid::from_raw(id.expect("the id of the server"));
        kill(server, signal).expect("the server gets a signal");
        eventually_within(START_DEADLINE, "Postgres ends", async || {
            match kill(server, None) {
                Err(Errno::ESRCH) => Ok(()),
                other => Err(format!("it still runs: {other:?}")),
            }
        })
        .await;
        tokio::time::sleep(pause).await;
        std::fs::remove_file(&down).expect("the file is removed");
        self.wait_until_ready().await;
    }

    /// Starts a server that stops when its last owner drops it.
    pub async fn start(durability: Durability) -> Self {
        let base = std::env::temp_dir();
        // The script removes the folder itself, since it outlives this process.
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
            include_str!("postgres.sh"),
            "postgres",
            &text(&folder),
            &port.to_string(),
            &text(&programs),
            match durability {
                Durability::NoFsync => "off",
                Durability::Fsync => "on",
            },
        ];
        let mut spec = ProcessSpec::new("postgres", "/bin/sh", &arguments, &base);
        spec.parent_death_signal = "TERM";
        let server = Self {
            process: Mutex::new(spec.start(&folder)),
            port,
            password,
            folder,
            copying: Mutex::new(()),
        };
        server.wait_until_ready().await;
        server.migrate().await;
        server
    }

    async fn wait_until_ready(&self) {
        let url = self.url("postgres", self.port);
        eventually_within(
            START_DEADLINE,
            "the private Postgres accepts connections",
            async || {
                let mut process = self.process.lock().await;
                if let Some(status) = process.try_wait() {
                    panic!("the private Postgres ended ({status}) before it was ready");
                }
                match PgConnection::connect(&url).await {
                    Ok(connection) => Ok(connection.close().await),
                    Err(error) => Err(format!("{error}\n{}", process.logs())),
                }
            },
        )
        .await
        .expect("the connection closes");
    }

    async fn migrate(&self) {
        self.execute_as_admin(&format!("CREATE DATABASE {TEMPLATE_DATABASE}"))
            .await;
        let url = self.url(TEMPLATE_DATABASE, self.port);
        let spec = ProcessSpec::new("migrate", programs::runcastd(), &["migrate"], &self.folder)
            .with_env([("DATABASE_URL", url.as_str())]);
        let mut migrate = spec.start(&self.folder);
        let status = migrate.wait_exit(START_DEADLINE).await;
        assert!(
            status.success(),
            "runcastd migrate failed ({status})\n{}",
            migrate.logs()
        );
    }
}

impl Drop for PostgresServer {
    /// The shared server lives as long as the test process.
    fn drop(&mut self) {
        let process = self.process.get_mut();
        process.signal(Signal::SIGTERM);
        let start = Instant::now();
        while process.try_wait().is_none() && start.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
