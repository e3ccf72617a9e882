//! Whether Redis and Postgres are there and fit for the work: before any service starts, and by
//! `runcastd check`.
//!
//! Redis must not evict: what it drops to make room would be unstored events. It should persist: what
//! it forgets in a restart has to be published again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use runcast_common::config::PostgresUrl;
use runcast_common::connect::{Kind, Redis, RedisFailure, Server};
use runcast_common::redis;
use tokio::time::timeout;
use tracing::warn;

use runcast_common::config::environment::Environment;
use runcast_store::Store;

/// Longest wait for a server at the start.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Oldest Redis with sharded pub/sub.
const OLDEST_REDIS: u32 = 7;

/// Checks Redis: every master, and every replica that may become one. Says in a few words what it
/// consists of.
///
/// # Errors
/// One line that names the setting, what is wrong, and what to do.
pub async fn redis(redis: &Redis, environment: Environment) -> anyhow::Result<String> {
    let (masters, replicas) = timeout(START_DEADLINE, servers(redis))
        .await
        .with_context(|| format!("Redis at {} does not answer", redis.address()))
        .and_then(|servers| Ok(servers?))
        .context("REDIS_URL")?;
    let mut versions = BTreeSet::new();
    for server in &masters {
        let version = examine(server, redis.kind(), environment).await;
        versions.insert(version.context("REDIS_URL")?);
    }
    for server in &replicas {
        match examine(server, redis.kind(), environment).await {
            Ok(version) => _ = versions.insert(version),
            // It need not be there for the work, only fit for it.
            Err(error) if error.is::<RedisFailure>() => {
                warn!(
                    error = format!("{error:#}"),
                    "a replica of REDIS_URL cannot be asked"
                );
            }
            Err(error) => return Err(error.context("REDIS_URL")),
        }
    }
    let versions: Vec<String> = versions.into_iter().collect();
    let (masters, replicas) = (masters.len(), replicas.len());
    let parts = match redis.kind() {
        Kind::Single => "one server".to_owned(),
        Kind::Sentinel => format!("Sentinel: a master and {replicas} replicas"),
        Kind::Cluster => format!("cluster: {masters} masters and {replicas} replicas"),
    };
    Ok(format!("{parts}, Redis {}", versions.join(" and ")))
}

async fn servers(redis: &Redis) -> Result<(Vec<Server>, Vec<Server>), RedisFailure> {
    Ok((redis.masters().await?, redis.replicas().await?))
}

/// Checks one server, and gives its version.
async fn examine(server: &Server, kind: Kind, environment: Environment) -> anyhow::Result<String> {
    let info: String = server.query(&redis::cmd("INFO")).await?;
    let address = server.address();
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    match (info.get("redis_mode").copied(), kind) {
        (Some("cluster"), Kind::Single | Kind::Sentinel) => bail!(
            "{address} is a node of a cluster: name it by redis+cluster://host1:port,host2:port"
        ),
        (Some("sentinel"), _) => bail!(
            "{address} is a sentinel: name the service by redis+sentinel://host1:port,host2:port/service"
        ),
        _ => {}
    }
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|text| text.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST_REDIS) {
        bail!(
            "Redis {version} at {address} is too old: {OLDEST_REDIS}.0 or newer is needed, for sharded pub/sub"
        );
    }
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    if policy != "noeviction" {
        bail!(
            "maxmemory-policy of {address} is {policy}: it would drop events that are not stored; set it to noeviction"
        );
    }
    if info.get("aof_enabled") == Some(&"0") && !saves_snapshots(server).await {
        let message = "persistence is off: a restart of Redis forgets what is not stored yet, and agents have to \
                       publish it again; set appendonly yes";
        match environment {
            Environment::Production => bail!("{address}: {message}"),
            Environment::Development => warn!("REDIS_URL: {address}: {message}"),
        }
    }
    Ok(version.to_owned())
}

async fn saves_snapshots(server: &Server) -> bool {
    let mut command = redis::cmd("CONFIG");
    command.arg(&["GET", "save"]);
    match server.query::<HashMap<String, String>>(&command).await {
        Ok(config) => config.get("save").is_some_and(|save| !save.is_empty()),
        // A server that does not let us ask is a managed one, which persists.
        Err(_) => true,
    }
}

/// Checks Postgres and its schema.
///
/// # Errors
/// [`runcast_store::schema::SchemaError`] for a schema that does not fit, else one line that names the
/// setting.
pub async fn postgres(store: &Store, url: &PostgresUrl) -> anyhow::Result<()> {
    timeout(START_DEADLINE, store.ping())
        .await
        .context("it does not answer")
        .and_then(|answer| Ok(answer?))
        .with_context(|| format!("DATABASE_URL: Postgres at {url} cannot be reached"))?;
    store.check_schema().await.context("DATABASE_URL")?;
    Ok(())
}
