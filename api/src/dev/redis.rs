//! The private Redis of `runcastd dev`: append-only file, no eviction, a user with a
//! password. Agents do not get it: they publish through the gateway.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_common::redis;
use tokio::time::timeout;

use super::child::{Child, free_port};
use super::data_dir::{password, write_secret};

/// Longest time for one PING while the server starts.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The running server.
pub(super) struct RedisServer {
    pub(super) child: Child,
    /// Its address for the services.
    pub(super) url: RedisUrl,
}

/// Starts it on its data in the folder, and waits until it answers.
pub(super) async fn start(dir: &Path) -> anyhow::Result<RedisServer> {
    let home = dir.join("redis");
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let service = password(&home.join("password"))?;
    let users = format!("user default on >{} ~* &* +@all", service.expose());
    let acl = home.join("users.acl");
    write_secret(&acl, &users)?;
    let port = free_port()?;
    let arguments = [
        ("--bind", "127.0.0.1".to_owned()),
        ("--port", port.to_string()),
        ("--dir", home.display().to_string()),
        ("--aclfile", acl.display().to_string()),
        ("--appendonly", "yes".to_owned()),
        ("--save", String::new()),
        ("--maxmemory-policy", "noeviction".to_owned()),
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
    let program = Path::new("redis-server");
    let mut child = Child::start("Redis", None, program, &arguments, &dir.join("redis.log"))?;
    let url: RedisUrl =
        format!("redis://default:{}@127.0.0.1:{port}/0", service.expose()).parse()?;
    let probe = Redis::new(&url)?;
    let any_slot = Keys::slot(0);
    child
        .wait_until(async || {
            let ping = redis::cmd("PING");
            matches!(
                timeout(PING_TIMEOUT, probe.query::<String>(any_slot, &ping)).await,
                Ok(Ok(_))
            )
        })
        .await?;
    Ok(RedisServer { child, url })
}
