//! [`Redis`]: the whole deployment, with one call per slot. See the module for its rules.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, PushInfo, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::dial::Dial;
use super::error::RedisFailure;
use super::sentinel::Service;
use super::server::{Route, Server};
use crate::config::{RedisUrl, Topology};
use crate::protocol::keys::{PARTITION_COUNT, Slot};
use crate::protocol::limits::REDIS_DEADLINE;

/// All servers of a Redis deployment. Cloning is cheap.
#[derive(Clone)]
pub struct Redis {
    servers: Servers,
}

/// The kind of a Redis deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Single,
    /// One master with replicas, watched by sentinels.
    Sentinel,
    /// Several masters, each of which holds some of the slots.
    Cluster,
}

#[derive(Clone)]
enum Servers {
    One(Server),
    Cluster(Arc<Cluster>),
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares connections without sending anything. Fails if the address cannot be used.
    pub fn new(url: &RedisUrl) -> Result<Self, RedisFailure> {
        let (address, ca) = (url.to_string(), url.ca());
        let failed = |error| RedisFailure::Failed {
            address: url.to_string(),
            error,
        };
        let route = match url.topology() {
            Topology::Single(info) => Route::Fixed(Dial::new(info, ca).client().map_err(failed)?),
            Topology::Sentinel {
                sentinels,
                service,
                redis,
            } => Route::Master(Service::new(service, sentinels, redis, ca).map_err(failed)?),
            Topology::Cluster(seeds) => {
                let cluster = Cluster::new(address, seeds, ca);
                return Ok(Self {
                    servers: Servers::Cluster(Arc::new(cluster)),
                });
            }
        };
        Ok(Self {
            servers: Servers::One(Server::new(route, address)),
        })
    }

    /// The same deployment with its own connections, for another Tokio runtime: a connection
    /// belongs to the runtime that first uses it.
    #[must_use]
    pub fn with_new_connections(&self) -> Self {
        let servers = match &self.servers {
            Servers::One(server) => Servers::One(server.with_new_connections()),
            Servers::Cluster(cluster) => Servers::Cluster(Arc::new(cluster.with_new_connections())),
        };
        Self { servers }
    }

    /// The configured address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        match &self.servers {
            Servers::One(server) => server.address(),
            Servers::Cluster(cluster) => cluster.address(),
        }
    }

    /// Returns whether the last call got a reply; for a cluster, from at least one master.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match &self.servers {
            Servers::One(server) => server.is_healthy(),
            Servers::Cluster(cluster) => cluster.is_healthy(),
        }
    }

    /// The kind of this deployment.
    #[must_use]
    pub fn kind(&self) -> RedisMode {
        match &self.servers {
            Servers::One(server) if server.service().is_some() => RedisMode::Sentinel,
            Servers::One(_) => RedisMode::Single,
            Servers::Cluster(_) => RedisMode::Cluster,
        }
    }

    /// Groups of partitions that one command, and so one blocking read, may touch together: one
    /// group of all partitions, or in a cluster, where a command is limited to one slot, one group
    /// each.
    #[must_use]
    pub fn partition_groups(&self) -> Vec<Range<usize>> {
        match &self.servers {
            Servers::One(_) => std::iter::once(0..PARTITION_COUNT).collect(),
            Servers::Cluster(_) => (0..PARTITION_COUNT)
                .map(|partition| partition..partition + 1)
                .collect(),
        }
    }

    /// The masters: every server that holds slots. Fails if no node of a cluster can be reached.
    pub async fn masters(&self) -> Result<Vec<Server>, RedisFailure> {
        match &self.servers {
            Servers::One(server) => Ok(vec![server.clone()]),
            Servers::Cluster(cluster) => cluster.masters().await,
        }
    }

    /// The replicas that sentinels or the cluster report: servers that may become a master. A
    /// single server has none.
    pub async fn replicas(&self) -> Result<Vec<Server>, RedisFailure> {
        let failed = |error| RedisFailure::Failed {
            address: self.address().to_owned(),
            error,
        };
        let dials = match &self.servers {
            Servers::Cluster(cluster) => cluster.replicas().await?,
            Servers::One(server) => match server.service() {
                Some(service) => service.replicas().await.map_err(failed)?,
                None => Vec::new(),
            },
        };
        let replicas = dials.iter().map(Server::fixed).collect::<Result<_, _>>();
        replicas.map_err(failed)
    }

    /// Lets the servers of a cluster be listed anew when they are needed next: it may have more of
    /// them, although none has refused a call.
    pub fn suspect_servers(&self) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.suspect();
        }
    }

    /// Sends one command for keys in `slot` on the shared connection, within
    /// [`REDIS_DEADLINE`]. After an error the server may
    /// or may not have executed it.
    pub async fn query<T: FromRedisValue>(
        &self,
        slot: Slot,
        command: &Cmd,
    ) -> Result<T, RedisFailure> {
        self.run(slot, async |connection| {
            command.query_async(connection).await
        })
        .await
    }

    /// Runs `calls` for keys in `slot` on the shared connection, all together within
    /// [`REDIS_DEADLINE`]. After an error the server may
    /// or may not have executed them.
    ///
    /// If one of the calls gets `MOVED`, all of them run once more on the new node. So where there
    /// are several, each must be safe to repeat. `calls` is cloned: let it capture references.
    pub async fn run<T>(
        &self,
        slot: Slot,
        calls: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError> + Clone,
    ) -> Result<T, RedisFailure> {
        let cluster = match &self.servers {
            Servers::One(server) => return server.run(calls).await,
            Servers::Cluster(cluster) => cluster,
        };
        let server = cluster.server(slot).await?;
        let failure = match server.run(calls.clone()).await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        // Refresh the slot map, and retry only if it now names another node.
        cluster.report(&failure);
        if failure.moved_to().is_none() {
            return Err(failure);
        }
        let new_server = cluster.server(slot).await?;
        if new_server.is_same(&server) {
            return Err(failure);
        }
        let result = new_server.run(calls).await;
        result.inspect_err(|failure| cluster.report(failure))
    }

    /// Opens a separate connection to the server that holds `slot`, for blocking reads. It has no
    /// response timeout: the owner must bound every wait, report an error to [`Redis::failed`] or
    /// [`Redis::timed_out`], and then drop the connection.
    pub async fn dedicated(&self, slot: Slot) -> Result<MultiplexedConnection, RedisFailure> {
        let server = self.server(slot).await?;
        let opened = server.dedicated().await;
        opened.inspect_err(|failure| self.report(failure))
    }

    /// Opens a connection like [`Redis::dedicated`], whose pushes (pub/sub messages, and the end of
    /// the connection) go to the returned receiver.
    pub async fn subscriber(
        &self,
        slot: Slot,
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>), RedisFailure> {
        let server = self.server(slot).await?;
        let opened = server.subscriber().await;
        opened.inspect_err(|failure| self.report(failure))
    }

    /// Records an error on a separate connection, so that the next one goes to the server that
    /// holds the slot by then.
    #[must_use]
    pub fn failed(&self, error: RedisError) -> RedisFailure {
        let failure = RedisFailure::Failed {
            address: self.address().to_owned(),
            error,
        };
        self.report(&failure);
        failure
    }

    /// Records a missed deadline on a separate connection, as [`Redis::failed`] does an error.
    #[must_use]
    pub fn timed_out(&self, deadline: Duration) -> RedisFailure {
        let failure = RedisFailure::TimedOut {
            address: self.address().to_owned(),
            deadline,
        };
        self.report(&failure);
        failure
    }

    /// Sends a command on a separate connection, and waits until it succeeds, at most
    /// [`REDIS_DEADLINE`].
    pub async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        command: &Cmd,
    ) -> Result<(), RedisFailure> {
        match timeout(REDIS_DEADLINE, command.query_async::<Value>(connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_elapsed) => Err(self.timed_out(REDIS_DEADLINE)),
        }
    }

    async fn server(&self, slot: Slot) -> Result<Server, RedisFailure> {
        match &self.servers {
            Servers::One(server) => Ok(server.clone()),
            Servers::Cluster(cluster) => cluster.server(slot).await,
        }
    }

    fn report(&self, failure: &RedisFailure) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.report(failure);
        }
    }
}
