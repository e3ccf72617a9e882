//! The master of a Sentinel service: sentinels are asked where it is before each connection, and it is
//! asked itself whether it is one.
//!
//! A sentinel may be behind the times after a failover; the server's own word, the `role` in the answer
//! to `HELLO` (which every user may send), decides. Sentinels are asked in turn, from a random one on,
//! each for at most a second.

use std::collections::HashMap;

use rand::RngExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, Value};

use tokio::time::timeout;

use super::dial::{self, Dial};
use super::error::no_master;
use crate::config::Ca;

/// A service, and whom to ask about it.
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
        let found: Option<(String, u16)> = self.ask("GET-MASTER-ADDR-BY-NAME").await?;
        let Some((host, port)) = found else {
            let detail = format!("the sentinels know no service {}", self.name);
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            return Err(RedisError::from((kind, "no such service", detail)));
        };
        let dial = self.redis.at(&host, port);
        let mut connection = connect(&dial.client()?, config).await?;
        let hello = redis::cmd("HELLO");
        let asking = hello.query_async::<HashMap<String, Value>>(&mut connection);
        let Ok(hello) = timeout(dial::ASK_DEADLINE, asking).await else {
            return Err(no_master(format!("{} does not answer", dial.place())));
        };
        match hello?.get("role") {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            Some(Value::SimpleString(role)) if role == "master" => Ok(connection),
            _ => Err(no_master(format!("{} is a replica", dial.place()))),
        }
    }

    /// Where the replicas of the master are that can be reached.
    pub(super) async fn replicas(&self) -> Result<Vec<Dial>, RedisError> {
        let replicas: Vec<HashMap<String, String>> = self.ask("REPLICAS").await?;
        let place = |replica: HashMap<String, String>| {
            let flags = replica.get("flags")?;
            let (host, port) = (replica.get("ip")?, replica.get("port")?.parse().ok()?);
            (!flags.contains("down")).then(|| self.redis.at(host, port))
        };
        Ok(replicas.into_iter().filter_map(place).collect())
    }

    /// The first answer that comes from any sentinel.
    async fn ask<T: FromRedisValue>(&self, what: &str) -> Result<T, RedisError> {
        let mut command = redis::cmd("SENTINEL");
        command.arg(what).arg(&self.name);
        let first = rand::rng().random_range(0..self.sentinels.len().max(1));
        let (before, after) = self.sentinels.split_at(first.min(self.sentinels.len()));
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "there are no sentinels"));
        for sentinel in after.iter().chain(before) {
            let answer = match connect(sentinel, &dial::asking()).await {
                Ok(mut connection) => command.query_async(&mut connection).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
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
