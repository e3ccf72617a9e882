//! Connections to Redis as Runcast needs them: to one server, to the master behind sentinels, or to the
//! nodes of a cluster.
//!
//! - [`Redis`] knows which server holds a slot. Every call names the slot of its keys; all keys of a run
//!   lie in one. A single server holds all of them, and a call goes straight to it.
//! - [`Server`] is one shared, multiplexed connection that is made again whenever it breaks. A call
//!   has a deadline; a call that times out or fails on the wire breaks the connection, because a
//!   half-open one never answers again; so does `READONLY`, the answer of a demoted master.
//! - [`Redis::dedicated`] opens one more connection, for a blocking read or for subscriptions.
//!
//! A failed call is not repeated here, since only its caller knows whether that is safe. One exception:
//! a node of a cluster that answers `MOVED` has done nothing, and the call goes once to where it points.

mod cluster;
mod dial;
mod error;
mod sentinel;
mod server;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, PushInfo, RedisError};
use tokio::sync::mpsc;

use self::cluster::Cluster;
use self::dial::Dial;
pub use self::error::RedisFailure;
use self::sentinel::Service;
use self::server::Route;
pub use self::server::Server;
use crate::config::{RedisUrl, Topology};
use crate::protocol::keys::{PARTITIONS, Slot};

/// Chooses the cryptography of every TLS connection of this process (Redis, Postgres, HTTPS). To be
/// called once, first thing in a program; a later call changes nothing.
pub fn install_tls_provider() {
    // An error says that a provider is installed already, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// All of Redis, whatever it consists of. Cloning is cheap.
#[derive(Clone)]
pub struct Redis {
    topology: Servers,
}

/// What Redis consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One server.
    Single,
    /// A master with replicas, which sentinels know.
    Sentinel,
    /// Several masters, each with some of the slots.
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
    /// Prepares connections; nothing is sent yet.
    ///
    /// # Errors
    /// If the address cannot be used.
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
                    topology: Servers::Cluster(Arc::new(cluster)),
                });
            }
        };
        Ok(Self {
            topology: Servers::One(Server::new(route, address)),
        })
    }

    /// The same, by connections of its own: they belong to the runtime that they are first used in.
    #[must_use]
    pub fn separate(&self) -> Self {
        let topology = match &self.topology {
            Servers::One(server) => Servers::One(server.separate()),
            Servers::Cluster(cluster) => Servers::Cluster(Arc::new(cluster.separate())),
        };
        Self { topology }
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        match &self.topology {
            Servers::One(server) => server.address(),
            Servers::Cluster(cluster) => cluster.address(),
        }
    }

    /// True if the last call got an answer; in a cluster, that of any node.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match &self.topology {
            Servers::One(server) => server.is_healthy(),
            Servers::Cluster(cluster) => cluster.is_healthy(),
        }
    }

    /// What it consists of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.topology {
            Servers::One(server) if server.service().is_some() => Kind::Sentinel,
            Servers::One(_) => Kind::Single,
            Servers::Cluster(_) => Kind::Cluster,
        }
    }

    /// The partitions that one command, and so one blocking read, may touch together: all of them, but
    /// in a cluster each by itself, since its commands are limited to one slot.
    #[must_use]
    pub fn lanes(&self) -> Vec<Range<usize>> {
        match &self.topology {
            Servers::One(_) => std::iter::once(0..PARTITIONS).collect(),
            Servers::Cluster(_) => (0..PARTITIONS)
                .map(|partition| partition..partition + 1)
                .collect(),
        }
    }

    /// Every server that holds slots: the masters.
    ///
    /// # Errors
    /// [`RedisFailure`] if the nodes of a cluster cannot be found.
    pub async fn masters(&self) -> Result<Vec<Server>, RedisFailure> {
        match &self.topology {
            Servers::One(server) => Ok(vec![server.clone()]),
            Servers::Cluster(cluster) => cluster.masters().await,
        }
    }

    /// Every server that may take the place of a master, as far as sentinels or the cluster know.
    ///
    /// # Errors
    /// [`RedisFailure`] if they cannot be asked.
    pub async fn replicas(&self) -> Result<Vec<Server>, RedisFailure> {
        let failed = |error| RedisFailure::Failed {
            address: self.address().to_owned(),
            error,
        };
        let dials = match &self.topology {
            Servers::Cluster(cluster) => cluster.replicas().await?,
            Servers::One(server) => match server.service() {
                Some(service) => service.replicas().await.map_err(failed)?,
                None => Vec::new(),
            },
        };
        let servers = dials.iter().map(Server::fixed).collect::<Result<_, _>>();
        servers.map_err(failed)
    }

    /// Sends one command about keys in `slot` on a shared connection, within
    /// [`REDIS_DEADLINE`](crate::limits::REDIS_DEADLINE).
    ///
    /// # Errors
    /// [`RedisFailure`]; the command may or may not have been carried out.
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

    /// Runs calls about keys in `slot` on a shared connection, all together within
    /// [`REDIS_DEADLINE`](crate::limits::REDIS_DEADLINE). They are run once more if one of them found the
    /// slot moved to another node of a cluster, so of several calls each must be safe to repeat;
    /// what `calls` holds should be references, which cost nothing to clone.
    ///
    /// # Errors
    /// [`RedisFailure`]; the calls may or may not have been carried out.
    pub async fn run<T>(
        &self,
        slot: Slot,
        calls: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError> + Clone,
    ) -> Result<T, RedisFailure> {
        let cluster = match &self.topology {
            Servers::One(server) => return server.run(calls).await,
            Servers::Cluster(cluster) => cluster,
        };
        let server = cluster.server(slot).await?;
        let failure = match server.run(calls.clone()).await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        cluster.doubt(&failure);
        if failure.moved_to().is_none() {
            return Err(failure);
        }
        let holder = cluster.server(slot).await?;
        if holder.is_same(&server) {
            return Err(failure);
        }
        let result = holder.run(calls).await;
        result.inspect_err(|failure| cluster.doubt(failure))
    }

    /// Opens a connection of its own to the server that holds `slot`, for blocking reads: it has no
    /// response timeout, so its owner must bound every wait, tell [`Redis::failed`] or [`Redis::silent`]
    /// what went wrong, and drop the connection then.
    ///
    /// # Errors
    /// [`RedisFailure`] if the server cannot be reached.
    pub async fn dedicated(&self, slot: Slot) -> Result<MultiplexedConnection, RedisFailure> {
        let server = self.server(slot).await?;
        let opened = server.dedicated().await;
        opened.inspect_err(|failure| self.doubt(failure))
    }

    /// Opens a connection as [`Redis::dedicated`] does, whose pushes (pub/sub messages, and the end of
    /// the connection) go to the returned receiver.
    ///
    /// # Errors
    /// [`RedisFailure`] if the server cannot be reached.
    pub async fn subscriber(
        &self,
        slot: Slot,
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>), RedisFailure> {
        let server = self.server(slot).await?;
        let opened = server.subscriber().await;
        opened.inspect_err(|failure| self.doubt(failure))
    }

    /// Takes note of an error on a connection of the caller's own: the next one is made to whichever
    /// server holds the slot by then.
    #[must_use]
    pub fn failed(&self, error: RedisError) -> RedisFailure {
        let failure = RedisFailure::Failed {
            address: self.address().to_owned(),
            error,
        };
        self.doubt(&failure);
        failure
    }

    /// The same for an answer that did not come in time.
    #[must_use]
    pub fn silent(&self, deadline: Duration) -> RedisFailure {
        let failure = RedisFailure::Silent {
            address: self.address().to_owned(),
            deadline,
        };
        self.doubt(&failure);
        failure
    }

    async fn server(&self, slot: Slot) -> Result<Server, RedisFailure> {
        match &self.topology {
            Servers::One(server) => Ok(server.clone()),
            Servers::Cluster(cluster) => cluster.server(slot).await,
        }
    }

    fn doubt(&self, failure: &RedisFailure) {
        if let Servers::Cluster(cluster) = &self.topology {
            cluster.doubt(failure);
        }
    }
}
