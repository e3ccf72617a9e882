//! Finds the master of a Sentinel service before each connection, and verifies that it is a master.
//!
//! After a failover a sentinel may still name the old master. So the server itself decides: the
//! `role` in its reply to `HELLO`, which every user may send. Sentinels are queried in turn from a
//! random one, each within [`dial::DISCOVERY_DEADLINE`].

use std::collections::HashMap;

use rand::RngExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, Value};
use tokio::time::timeout;

use super::dial::{self, Dial};
use super::error::no_master;
use crate::config::Ca;

/// A Sentinel service and its sentinels.
#[derive(Clone)]
pub(super) struct Service {
    name: String,
    sentinels: Vec<Client>,
    redis: Dial,
}

impl Service {
    pub(super) fn new(
        name: &str,
        sentinels: &[redis::ConnectionInfo],
        redis: &redis::ConnectionInfo,
        ca: Option<&Ca>,
    ) -> Result<Self, RedisError> {
        let sentinels = sentinels.iter().map(|info| Dial::new(info, ca).client());
        Ok(Self {
            name: name.to_owned(),
            sentinels: sentinels.collect::<Result<_, _>>()?,
            redis: Dial::new(redis, ca),
        })
    }

    /// Connects to the master.
    pub(super) async fn open(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        // Discover the address of the master.
        let master: Option<(String, u16)> = self.query("GET-MASTER-ADDR-BY-NAME").await?;
        let Some((host, port)) = master else {
            let detail = format!("the sentinels know no service {}", self.name);
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            return Err(RedisError::from((kind, "no such service", detail)));
        };
        // Connect, and check the server's own role.
        let dial = self.redis.at(&host, port);
        let mut connection = connect(&dial.client()?, config).await?;
        let hello = redis::cmd("HELLO");
        let reply = hello.query_async::<HashMap<String, Value>>(&mut connection);
        let Ok(reply) = timeout(dial::DISCOVERY_DEADLINE, reply).await else {
            return Err(no_master(format!("{} does not answer", dial.address())));
        };
        match reply?.get("role") {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            Some(Value::SimpleString(role)) if role == "master" => Ok(connection),
            _ => Err(no_master(format!("{} is a replica", dial.address()))),
        }
    }

    /// The replicas that the sentinels do not report as down.
    pub(super) async fn replicas(&self) -> Result<Vec<Dial>, RedisError> {
        let replicas: Vec<HashMap<String, String>> = self.query("REPLICAS").await?;
        let dial = |replica: HashMap<String, String>| {
            let flags = replica.get("flags")?;
            let (host, port) = (replica.get("ip")?, replica.get("port")?.parse().ok()?);
            (!flags.contains("down")).then(|| self.redis.at(host, port))
        };
        Ok(replicas.into_iter().filter_map(dial).collect())
    }

    /// The first reply of any sentinel to `SENTINEL <subcommand> <service>`.
    async fn query<T: FromRedisValue>(&self, subcommand: &str) -> Result<T, RedisError> {
        let mut command = redis::cmd("SENTINEL");
        command.arg(subcommand).arg(&self.name);
        let first = rand::rng().random_range(0..self.sentinels.len().max(1));
        let (before, after) = self.sentinels.split_at(first.min(self.sentinels.len()));
        let mut last_error = RedisError::from((
            ErrorKind::EmptySentinelList,
            "the address names no sentinels",
        ));
        for sentinel in after.iter().chain(before) {
            let reply = match connect(sentinel, &dial::discovery()).await {
                Ok(mut connection) => command.query_async(&mut connection).await,
                Err(error) => Err(error),
            };
            match reply {
                Ok(reply) => return Ok(reply),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }
}

async fn connect(
    client: &Client,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    client
        .get_multiplexed_async_connection_with_config(config)
        .await
}
