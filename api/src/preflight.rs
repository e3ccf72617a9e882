//! Checks that Redis and Postgres answer and fit this program: before any service starts, and by
//! `runcastd check`.
//!
//! Redis must not evict: what it evicts could be events that are not stored. It should persist:
//! after a restart agents have to publish again what it has lost.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use runcast_common::config::PostgresUrl;
use runcast_common::connect::{Redis, RedisFailure, RedisMode, Server};
use runcast_common::redis;
use tokio::time::timeout;
use tracing::warn;

use runcast_common::config::environment::Environment;
use runcast_store::Store;

/// Longest wait for each server at the start.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Oldest major version with sharded pub/sub.
const MIN_REDIS_VERSION: u32 = 7;

/// Checks Redis: every master, and every replica that may become one. Returns in a few words what
/// Redis consists of.
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
            // A replica need not answer now; it only must not be one that does not fit.
            Err(error) if error.is::<RedisFailure>() => {
                warn!(
                    error = format!("{error:#}"),
                    "REDIS_URL: a replica does not answer"
                );
            }
            Err(error) => return Err(error.context("REDIS_URL")),
        }
    }
    let versions: Vec<String> = versions.into_iter().collect();
    let (masters, replicas) = (masters.len(), replicas.len());
    let parts = match redis.kind() {
        RedisMode::Single => "one server".to_owned(),
        RedisMode::Sentinel => format!("Sentinel: a master and {replicas} replicas"),
        RedisMode::Cluster => format!("cluster: {masters} masters and {replicas} replicas"),
    };
    Ok(format!("{parts}, Redis {}", versions.join(" and ")))
}

async fn servers(redis: &Redis) -> Result<(Vec<Server>, Vec<Server>), RedisFailure> {
    Ok((redis.masters().await?, redis.replicas().await?))
}

/// Checks one server and returns its version.
async fn examine(
    server: &Server,
    kind: RedisMode,
    environment: Environment,
) -> anyhow::Result<String> {
    let info: String = server.query(&redis::cmd("INFO")).await?;
    let address = server.address();
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    match (info.get("redis_mode").copied(), kind) {
        (Some("cluster"), RedisMode::Single | RedisMode::Sentinel) => bail!(
            "{address} is a node of a cluster: name it by redis+cluster://host1:port,host2:port"
        ),
        (Some("sentinel"), _) => bail!(
            "{address} is a sentinel: name the service by redis+sentinel://host1:port,host2:port/service"
        ),
        _ => {}
    }
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|text| text.parse().ok());
    if major.is_none_or(|major: u32| major < MIN_REDIS_VERSION) {
        bail!(
            "Redis {version} at {address} is too old: {MIN_REDIS_VERSION}.0 or newer is needed, for sharded pub/sub"
        );
    }
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    if policy != "noeviction" {
        bail!(
            "maxmemory-policy of {address} is {policy}: it would evict events that are not stored; set it to noeviction"
        );
    }
    if info.get("aof_enabled") == Some(&"0") && !saves_snapshots(server).await {
        let message = "persistence is off: a restart of Redis loses what is not stored yet, and agents have to \
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
        // A server that refuses CONFIG is a managed one, which persists.
        Err(_) => true,
    }
}

/// Checks Postgres and its schema. A schema that does not fit is a
/// [`runcast_store::schema::SchemaError`] in the chain of the error.
pub async fn postgres(store: &Store, url: &PostgresUrl) -> anyhow::Result<()> {
    timeout(START_DEADLINE, store.ping())
        .await
        .context("no answer in time")
        .and_then(|answer| Ok(answer?))
        .with_context(|| format!("DATABASE_URL: Postgres at {url} cannot be reached"))?;
    store.check_schema().await.context("DATABASE_URL")?;
    Ok(())
}
