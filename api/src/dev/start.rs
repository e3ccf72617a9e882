//! `runcastd dev`: everything in one process, with a Redis and a Postgres of its own where none is
//! given.
//!
//! Everything lies in one folder (`RUNCAST_DATA_DIR`, default `.local`): the two servers' data, their
//! logs and passwords, and `token`, an admin token. Both servers listen on ports of 127.0.0.1 that are
//! chosen anew at each start, and end with this process, however it ends. A second start goes on with
//! the data of the first; two at a time on one folder are refused.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use runcast_common::config::{PostgresUrl, optional, redis_url};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::process::{App, Service};
use crate::config::{self, Settings};
use crate::dev::child::Child;
use runcast_access::Scope;
use runcast_access::secret::{self, Secret};
use runcast_common::config::Env;
use runcast_store::Store;
use runcast_store::audit::Actor;

/// The data folder, held by this process alone.
#[derive(Debug)]
struct DataDir {
    path: PathBuf,
    /// Holds the lock for as long as it is open.
    _lock: File,
}

/// Runs everything until told to stop.
///
/// # Errors
/// In words, if a part cannot be started or ended by itself.
pub async fn run(env: &impl Env, stop: CancellationToken) -> anyhow::Result<()> {
    let data = DataDir::open(&config::data_dir(env))?;
    let given_redis = redis_url(env, "REDIS_URL")?;
    let given_postgres: Option<PostgresUrl> = optional(env, "DATABASE_URL")?;
    let mut children = Vec::new();
    let (redis, publish) = match given_redis {
        Some(url) => (url, None),
        None => {
            let server = crate::dev::redis::start(&data.path, &config::key_prefix(env)?).await?;
            children.push(server.child);
            (server.url, Some(server.publish_url))
        }
    };
    let postgres = match given_postgres {
        Some(url) => url,
        None => {
            let server = crate::dev::postgres::start(&data.path).await?;
            children.push(server.child);
            server.url
        }
    };
    let mut settings = Settings::with_servers(env, redis, postgres)?;
    settings.publish_redis = settings.publish_redis.or(publish);

    let outcome = work(settings, &data, &mut children, &stop).await;
    // Clients first, then the servers: Postgres last, so that nothing is cut off.
    for child in children {
        child.stop().await;
    }
    outcome
}

async fn work(
    settings: Settings,
    data: &DataDir,
    children: &mut [Child],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let store = Store::new(&settings.postgres, "runcastd dev").context("DATABASE_URL")?;
    store.migrate().await.context("DATABASE_URL")?;
    store.make_partitions().await?;
    let token = data.token(&store).await?;
    store.close().await;

    let services = [Service::Gateway, Service::Persister, Service::Worker];
    let app = App::prepare(settings, &services).await?;
    let url = app.public_url()?;
    greet(url.as_str().trim_end_matches('/'), &token)?;

    let running = app.run(stop.clone());
    tokio::pin!(running);
    tokio::select! {
        outcome = &mut running => outcome,
        name = crate::dev::child::first_to_end(children) => {
            stop.cancel();
            running.await?;
            bail!("{name} ended by itself; its log is in {}", data.path.display())
        }
    }
}

fn greet(url: &str, token: &Path) -> anyhow::Result<()> {
    let token = token.display();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nRuncast is ready at {url}\n\n  \
         Sign in with the token in {token}. To watch a command:\n\n  \
         export RUNCAST_URL={url} RUNCAST_TOKEN=$(cat {token})\n  \
         runcast wrap -- ping -c 20 localhost\n"
    )
    .and_then(|()| out.flush())
    .context("cannot write to stdout")
}

impl DataDir {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let unusable = || format!("RUNCAST_DATA_DIR: {} cannot be used", path.display());
        // Others may pass through: Postgres runs as a user of its own when started by root.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path)
            .with_context(unusable)?;
        let path = path.canonicalize().with_context(unusable)?;
        let lock = File::create(path.join("lock")).with_context(unusable)?;
        if lock.try_lock().is_err() {
            bail!(
                "RUNCAST_DATA_DIR: another `runcastd dev` works on {}: stop it, or choose another folder",
                path.display()
            );
        }
        Ok(Self { path, _lock: lock })
    }

    /// The file with a valid admin token; made if there is none, or if it is of another database.
    async fn token(&self, store: &Store) -> anyhow::Result<PathBuf> {
        let path = self.path.join("token");
        if let Ok(text) = std::fs::read_to_string(&path)
            && store
                .token(Secret::claimed(text.trim()).hash())
                .await?
                .is_some()
        {
            return Ok(path);
        }
        let wanted = secret::TokenRequest {
            name: "admin",
            scopes: &[Scope::Admin],
            ..secret::TokenRequest::default()
        };
        let (_id, token) = secret::issue_token(store, &Actor::operator(), &wanted).await?;
        write_secret(&path, token.expose())?;
        info!(path = %path.display(), "made an admin token");
        Ok(path)
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(cannot)?;
    writeln!(file, "{text}").with_context(cannot)
}

/// A password that is made at the first start and kept.
pub(crate) fn password(path: &Path) -> anyhow::Result<Secret> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret::claimed(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let password = Secret::generate("")?;
            write_secret(path, password.expose())?;
            Ok(password)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A port of 127.0.0.1 that is free at this moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}
