//! The nodes of a Redis Cluster, and the cached slot map that routes each call.
//!
//! The map is fetched (`CLUSTER SLOTS`) when it is first needed, and again after a failure that may
//! mean it is stale: `MOVED`, a node that is gone, or one that rejects the call. One caller
//! refreshes while the others go on with the stale map. Any node can answer, each on a connection
//! opened for the query. Refreshes are spread by a jittered backoff and take at most
//! [`REFRESH_DEADLINE`].
//!
//! `ASK` and `TRYAGAIN`, sent while a slot migrates, are not followed: most calls here are scripts
//! over several keys, some of which do not exist, and neither node can serve those until the slot
//! has arrived. The caller gets an outage. The node has executed nothing then, and every caller
//! retries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::seq::SliceRandom as _;
use redis::{ConnectionInfo, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync;
use tokio::time::{Instant, timeout};

use super::dial::{self, Dial, host_and_port};
use super::error::RedisFailure;
use super::server::Server;
use super::slot_map::{SlotMap, SlotRange};
use crate::backoff::Backoff;
use crate::config::Ca;
use crate::protocol::keys::Slot;

/// Deadline for one refresh over all nodes.
const REFRESH_DEADLINE: Duration = Duration::from_secs(3);

/// Minimum time between two refreshes.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// After this long without a refresh the backoff starts over.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Cluster {
    address: String,
    seeds: Vec<Dial>,
    map: RwLock<Arc<SlotMap>>,
    /// The newest generation that is suspected to be stale. Generation 0, the empty map, always is.
    stale_generation: AtomicU64,
    /// The node that the last `MOVED` named: it is likely to have the newest map.
    moved_to: Mutex<Option<String>>,
    refresh: sync::Mutex<Refresh>,
}

/// When the next refresh is due. The mutex around it admits one refresh at a time.
struct Refresh {
    backoff: Backoff,
    last: Option<Instant>,
    not_before: Option<Instant>,
    /// Why the last refresh failed.
    error: Option<RedisError>,
}

impl Cluster {
    pub(super) fn new(address: String, seeds: &[ConnectionInfo], ca: Option<&Ca>) -> Self {
        let seeds = seeds.iter().map(|info| Dial::new(info, ca)).collect();
        Self::from_seeds(address, seeds)
    }

    /// The same cluster with its own connections.
    pub(super) fn with_new_connections(&self) -> Self {
        Self::from_seeds(self.address.clone(), self.seeds.clone())
    }

    fn from_seeds(address: String, seeds: Vec<Dial>) -> Self {
        Self {
            address,
            seeds,
            map: RwLock::default(),
            stale_generation: AtomicU64::new(0),
            moved_to: Mutex::default(),
            refresh: sync::Mutex::new(Refresh {
                backoff: Backoff::for_connections(),
                last: None,
                not_before: None,
                error: None,
            }),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The master that holds a slot.
    pub(super) async fn server(&self, slot: Slot) -> Result<Server, RedisFailure> {
        let map = self.current_map().await?;
        if let Some(server) = map.master(slot) {
            return Ok(server.clone());
        }
        self.mark_stale(map.generation);
        let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
        let detail = format!("slot {}", slot.number());
        Err(self.failure(RedisError::from((kind, "no node holds a slot", detail))))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.cached_map().masters.iter().any(Server::is_healthy)
    }

    pub(super) async fn masters(&self) -> Result<Vec<Server>, RedisFailure> {
        Ok(self.current_map().await?.masters.clone())
    }

    pub(super) async fn replicas(&self) -> Result<Vec<Dial>, RedisFailure> {
        Ok(self.current_map().await?.replicas.clone())
    }

    /// Marks the map as stale if the failure may come from a stale map.
    pub(super) fn report(&self, failure: &RedisFailure) {
        if !failure.is_outage() {
            return;
        }
        if let Some(node) = failure.moved_to() {
            *lock(&self.moved_to) = Some(node.to_owned());
        }
        self.mark_stale(self.cached_map().generation);
    }

    /// Marks the map as stale.
    pub(super) fn suspect(&self) {
        self.mark_stale(self.cached_map().generation);
    }

    fn mark_stale(&self, generation: u64) {
        self.stale_generation
            .fetch_max(generation, Ordering::Relaxed);
    }

    fn is_stale(&self, map: &SlotMap) -> bool {
        map.generation <= self.stale_generation.load(Ordering::Relaxed)
    }

    fn cached_map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest map, refreshed first if it is stale and no other caller is refreshing it.
    async fn current_map(&self) -> Result<Arc<SlotMap>, RedisFailure> {
        let map = self.cached_map();
        if !self.is_stale(&map) {
            return Ok(map);
        }
        // Only a caller that has no map at all waits for the refresh of another one.
        let mut refresh = match self.refresh.try_lock() {
            Ok(refresh) => refresh,
            Err(_refreshing) if map.generation > 0 => return Ok(map),
            Err(_refreshing) => self.refresh.lock().await,
        };
        let map = self.cached_map();
        let is_stale = self.is_stale(&map);
        let moved_to = lock(&self.moved_to).take();
        if is_stale && refresh.is_due(moved_to.is_some()) {
            self.refresh(moved_to.as_deref(), &map, &mut refresh).await;
        }
        let map = self.cached_map();
        match refresh.error.clone() {
            Some(error) if map.generation == 0 => Err(self.failure(error)),
            _ => Ok(map),
        }
    }

    /// Queries one node after another until one of them gives a map.
    async fn refresh(&self, moved_to: Option<&str>, old: &SlotMap, refresh: &mut Refresh) {
        refresh.schedule_next();
        let nodes = self.nodes_to_query(moved_to, old);
        let query_all = async {
            for node in nodes {
                match self.fetch_map(&node, old).await {
                    Ok(map) => {
                        if !map.is_same(old) {
                            tracing::debug!(
                                redis = self.address,
                                masters = map.masters.len(),
                                "the slot map of the cluster has changed"
                            );
                        }
                        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
                        refresh.error = None;
                        return;
                    }
                    Err(error) => {
                        let node = node.address();
                        tracing::debug!(node, %error, "a cluster node did not return its slot map");
                        refresh.error = Some(error);
                    }
                }
            }
        };
        if timeout(REFRESH_DEADLINE, query_all).await.is_err() {
            tracing::debug!(
                redis = self.address,
                "no cluster node returned a slot map in time"
            );
        }
    }

    /// The nodes in the order in which to query them: the one that `MOVED` named, then the others
    /// at random, so that thousands of agents do not query the same one, with unhealthy ones last.
    fn nodes_to_query(&self, moved_to: Option<&str>, old: &SlotMap) -> Vec<Dial> {
        let Some(seed) = self.seeds.first() else {
            return Vec::new();
        };
        let mut others: Vec<(bool, Dial)> = Vec::new();
        for master in &old.masters {
            if let Some((host, port)) = host_and_port(master.address()) {
                others.push((!master.is_healthy(), seed.at(host, port)));
            }
        }
        let seeds = self.seeds.iter().cloned();
        others.extend(seeds.map(|seed| (!old.masters.is_empty(), seed)));
        others.shuffle(&mut rand::rng());
        others.sort_by_key(|(is_last, _)| *is_last);
        let first = moved_to.and_then(host_and_port);
        first
            .map(|(host, port)| seed.at(host, port))
            .into_iter()
            .chain(others.into_iter().map(|(_, node)| node))
            .collect()
    }

    async fn fetch_map(&self, node: &Dial, old: &SlotMap) -> Result<SlotMap, RedisError> {
        let config = dial::discovery();
        let mut connection = node
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let reply: Vec<Value> = command.query_async(&mut connection).await?;
        let ranges: Option<Vec<SlotRange>> = reply
            .iter()
            .map(|range| SlotRange::parse(range, node.host()))
            .collect();
        match ranges {
            Some(ranges) if !ranges.is_empty() => SlotMap::build(&ranges, node, old),
            Some(_) => {
                let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
                Err(RedisError::from((kind, "no node holds any slot")))
            }
            None => Err(RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "the reply to CLUSTER SLOTS has an unexpected shape",
            ))),
        }
    }

    fn failure(&self, error: RedisError) -> RedisFailure {
        RedisFailure::Failed {
            address: self.address.clone(),
            error,
        }
    }
}

impl Refresh {
    /// A node that `MOVED` named may be queried earlier than the backoff allows: otherwise slots
    /// that move one after the other would make their runs wait longer and longer.
    fn is_due(&self, has_moved_to: bool) -> bool {
        let now = Instant::now();
        let is_spaced = self.last.is_none_or(|at| at + MIN_REFRESH_INTERVAL <= now);
        (has_moved_to && is_spaced) || self.not_before.is_none_or(|at| at <= now)
    }

    fn schedule_next(&mut self) {
        if self
            .last
            .is_some_and(|at| at.elapsed() > BACKOFF_RESET_AFTER)
        {
            self.backoff.reset();
        }
        let now = Instant::now();
        self.last = Some(now);
        self.not_before = Some(now + self.backoff.next_wait());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
