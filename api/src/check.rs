//! Whether Redis and Postgres are there and fit for the work: before any service starts, and by
//! `runcastd check`.
//!
//! Redis must not evict: what it drops to make room would be unstored events. It should persist: what
//! it forgets in a restart has to be published again.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use runcast_common::config::PostgresUrl;
use runcast_common::connect::Redis;
use runcast_common::redis;
use tokio::time::timeout;
use tracing::warn;

use crate::config::Environment;
use crate::store::Store;

/// Longest wait for a server at the start.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Oldest Redis with sharded pub/sub.
const OLDEST_REDIS: u32 = 7;

/// Checks Redis.
///
/// # Errors
/// One line that names the setting, what is wrong, and what to do.
pub async fn redis(redis: &Redis, environment: Environment) -> anyhow::Result<()> {
    let info = timeout(START_DEADLINE, redis.query::<String>(&redis::cmd("INFO")))
        .await
        .with_context(|| format!("Redis at {} does not answer", redis.address()))
        .and_then(|info| Ok(info?))
        .context("REDIS_URL")?;
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|text| text.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST_REDIS) {
        bail!(
            "REDIS_URL: Redis {version} is too old: {OLDEST_REDIS}.0 or newer is needed, for sharded pub/sub"
        );
    }
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    if policy != "noeviction" {
        bail!(
            "REDIS_URL: maxmemory-policy is {policy}: it would drop events that are not stored; set it to noeviction"
        );
    }
    if info.get("aof_enabled") == Some(&"0") && !saves_snapshots(redis).await {
        let message = "persistence is off: a restart of Redis forgets what is not stored yet, and agents have to \
                       publish it again; set appendonly yes";
        match environment {
            Environment::Production => bail!("REDIS_URL: {message}"),
            Environment::Development => warn!("REDIS_URL: {message}"),
        }
    }
    Ok(())
}

async fn saves_snapshots(redis: &Redis) -> bool {
    let mut command = redis::cmd("CONFIG");
    command.arg(&["GET", "save"]);
    match redis.query::<HashMap<String, String>>(&command).await {
        Ok(config) => config.get("save").is_some_and(|save| !save.is_empty()),
        // A server that does not let us ask is a managed one, which persists.
        Err(_) => true,
    }
}

/// Checks Postgres and its schema.
///
/// # Errors
/// [`crate::store::schema::SchemaError`] for a schema that does not fit, else one line that names the
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
