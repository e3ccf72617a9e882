//! The nodes of a Redis Cluster, and which of them holds which slot.
//!
//! The map is asked for (`CLUSTER SLOTS`) when it is first needed, and again after a failure that may
//! mean it is no longer true: `MOVED`, a node that is gone, or one that refuses. Who finds it in doubt
//! asks; others go on with what is there. Questions are spread by a jittered backoff and take at most
//! [`REFRESH_DEADLINE`]; any node may be asked, each on a connection made for it.
//!
//! `ASK` and `TRYAGAIN`, while a slot migrates, are not followed: most calls here are scripts over several
//! keys, of which some do not exist, and neither side can serve those until the slot has arrived. They
//! are told to the caller as an outage; nothing has been done then, and every caller tries again.

use std::collections::HashMap;
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
use crate::backoff::Backoff;
use crate::config::Ca;
use crate::protocol::keys::Slot;

/// Longest wait for a map.
const REFRESH_DEADLINE: Duration = Duration::from_secs(3);

/// Shortest time between two questions.
const REST: Duration = Duration::from_millis(50);

/// Without doubts for this long, the next question is asked at once.
const CALM: Duration = Duration::from_secs(10);

pub(super) struct Cluster {
    address: String,
    seeds: Vec<Dial>,
    map: RwLock<Arc<Map>>,
    /// Generation of the newest map that is in doubt; the first one knows nothing.
    doubted: AtomicU64,
    /// Who is likely to know better.
    informed: Mutex<Option<String>>,
    refresh: sync::Mutex<Refresh>,
}

#[derive(Default)]
struct Map {
    generation: u64,
    /// Ordered, without overlap.
    ranges: Vec<Range>,
    masters: Vec<Server>,
    replicas: Vec<Dial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    last: u16,
    first: u16,
    /// Index of the master.
    master: usize,
}

struct Refresh {
    backoff: Backoff,
    asked: Option<Instant>,
    not_before: Option<Instant>,
    /// Why the last question brought nothing.
    error: Option<RedisError>,
}

/// What `CLUSTER SLOTS` says of one range.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    first: u16,
    last: u16,
    /// Host and port of the master, then of its replicas.
    nodes: Vec<(String, u16)>,
}

impl Cluster {
    pub(super) fn new(address: String, seeds: &[ConnectionInfo], ca: Option<&Ca>) -> Self {
        let seeds = seeds.iter().map(|info| Dial::new(info, ca)).collect();
        Self::of(address, seeds)
    }

    /// The same cluster, by connections of its own.
    pub(super) fn separate(&self) -> Self {
        Self::of(self.address.clone(), self.seeds.clone())
    }

    fn of(address: String, seeds: Vec<Dial>) -> Self {
        Self {
            address,
            seeds,
            map: RwLock::default(),
            doubted: AtomicU64::new(0),
            informed: Mutex::default(),
            refresh: sync::Mutex::new(Refresh {
                backoff: Backoff::for_connections(),
                asked: None,
                not_before: None,
                error: None,
            }),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The server that holds a slot.
    pub(super) async fn server(&self, slot: Slot) -> Result<Server, RedisFailure> {
        let map = self.current().await?;
        let number = slot.number();
        let at = map.ranges.partition_point(|range| range.last < number);
        match map.ranges.get(at) {
            Some(range) if range.first <= number => Ok(map.masters[range.master].clone()),
            _ => {
                self.doubted.fetch_max(map.generation, Ordering::Relaxed);
                let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
                let detail = format!("slot {number}");
                Err(self.failure(RedisError::from((kind, "no node holds a slot", detail))))
            }
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.map().masters.iter().any(Server::is_healthy)
    }

    pub(super) async fn masters(&self) -> Result<Vec<Server>, RedisFailure> {
        Ok(self.current().await?.masters.clone())
    }

    pub(super) async fn replicas(&self) -> Result<Vec<Dial>, RedisFailure> {
        Ok(self.current().await?.replicas.clone())
    }

    /// Notes a failure that may come from a map that is no longer true.
    pub(super) fn doubt(&self, failure: &RedisFailure) {
        if !failure.is_outage() {
            return;
        }
        if let Some(place) = failure.moved_to() {
            *lock(&self.informed) = Some(place.to_owned());
        }
        self.doubted
            .fetch_max(self.map().generation, Ordering::Relaxed);
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest map, asked for if the present one is in doubt and nobody else is asking.
    async fn current(&self) -> Result<Arc<Map>, RedisFailure> {
        let map = self.map();
        if map.generation > self.doubted.load(Ordering::Relaxed) {
            return Ok(map);
        }
        // Without any map there is nothing to go on with but what others are asking for.
        let mut refresh = match self.refresh.try_lock() {
            Ok(refresh) => refresh,
            Err(_asking) if map.generation > 0 => return Ok(map),
            Err(_asking) => self.refresh.lock().await,
        };
        let map = self.map();
        let is_fresh = map.generation > self.doubted.load(Ordering::Relaxed);
        let informed = lock(&self.informed).take();
        if !is_fresh && refresh.is_due(informed.is_some()) {
            self.ask_around(informed.as_deref(), &map, &mut refresh)
                .await;
        }
        let map = self.map();
        match refresh.error.clone() {
            Some(error) if map.generation == 0 => Err(self.failure(error)),
            _ => Ok(map),
        }
    }

    /// Asks one node after another for a map, those first that are likely to know.
    async fn ask_around(&self, informed: Option<&str>, old: &Map, refresh: &mut Refresh) {
        refresh.plan_next();
        let mut places: Vec<Dial> = informed
            .and_then(host_and_port)
            .and_then(|(host, port)| Some(self.seeds.first()?.at(host, port)))
            .into_iter()
            .collect();
        // A random one otherwise, so that thousands of agents do not ask the same; the sick at last.
        let mut others: Vec<(bool, Dial)> = Vec::new();
        for master in &old.masters {
            if let Some((host, port)) = host_and_port(master.address()) {
                let dials = self.seeds.first().map(|seed| seed.at(host, port));
                others.extend(dials.map(|dial| (!master.is_healthy(), dial)));
            }
        }
        others.extend(
            self.seeds
                .iter()
                .map(|seed| (!old.masters.is_empty(), seed.clone())),
        );
        others.shuffle(&mut rand::rng());
        others.sort_by_key(|(is_sick, _)| *is_sick);
        places.extend(others.into_iter().map(|(_, dial)| dial));

        let asking = async {
            for place in places {
                match self
                    .ask(&place)
                    .await
                    .and_then(|parts| self.draw(&parts, old))
                {
                    Ok(map) => {
                        if map.ranges != old.ranges || !map.has_same_masters(old) {
                            tracing::debug!(
                                redis = self.address,
                                masters = map.masters.len(),
                                "the slots of the cluster are distributed anew"
                            );
                        }
                        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
                        refresh.error = None;
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(node = place.place(), %error, "a node does not say who holds which slot");
                        refresh.error = Some(error);
                    }
                }
            }
        };
        if timeout(REFRESH_DEADLINE, asking).await.is_err() {
            tracing::debug!(
                redis = self.address,
                "no node has said in time who holds which slot"
            );
        }
    }

    async fn ask(&self, place: &Dial) -> Result<Vec<Part>, RedisError> {
        let client = place.client()?;
        let config = dial::asking();
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let reply: Vec<Value> = command.query_async(&mut connection).await?;
        let parts: Option<Vec<Part>> = reply
            .iter()
            .map(|part| Part::read(part, place.host()))
            .collect();
        match parts {
            Some(parts) if !parts.is_empty() => Ok(parts),
            Some(_) => {
                let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
                Err(RedisError::from((kind, "no slot is held by any node")))
            }
            None => Err(RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "CLUSTER SLOTS is answered in another shape than this version expects",
            ))),
        }
    }

    /// Makes a map of what a node said; servers that are known keep their connections.
    fn draw(&self, parts: &[Part], old: &Map) -> Result<Map, RedisError> {
        let mut map = Map {
            generation: old.generation + 1,
            ..Map::default()
        };
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut replicas: HashMap<String, Dial> = HashMap::new();
        let Some(seed) = self.seeds.first() else {
            return Ok(map);
        };
        for part in parts {
            let mut dials = part.nodes.iter().map(|(host, port)| seed.at(host, *port));
            let Some(dial) = dials.next() else { continue };
            let place = dial.place();
            let master = match known.get(&place) {
                Some(index) => *index,
                None => {
                    let kept = old.masters.iter().find(|server| server.address() == place);
                    map.masters.push(match kept {
                        Some(server) => server.clone(),
                        None => Server::fixed(&dial)?,
                    });
                    known.insert(place, map.masters.len() - 1);
                    map.masters.len() - 1
                }
            };
            map.ranges.push(Range {
                first: part.first,
                last: part.last,
                master,
            });
            replicas.extend(dials.map(|dial| (dial.place(), dial)));
        }
        map.ranges.sort_by_key(|range| range.first);
        map.replicas = replicas.into_values().collect();
        Ok(map)
    }

    fn failure(&self, error: RedisError) -> RedisFailure {
        RedisFailure::Failed {
            address: self.address.clone(),
            error,
        }
    }
}

impl Map {
    fn has_same_masters(&self, other: &Self) -> bool {
        self.masters.len() == other.masters.len()
            && self
                .masters
                .iter()
                .zip(&other.masters)
                .all(|(one, two)| one.is_same(two))
    }
}

impl Refresh {
    /// Somebody who is known to know may be asked sooner: slots that move one after the other must not
    /// make their runs wait longer and longer.
    fn is_due(&self, is_informed: bool) -> bool {
        let now = Instant::now();
        let is_rested = self.asked.is_none_or(|at| at + REST <= now);
        (is_informed && is_rested) || self.not_before.is_none_or(|at| at <= now)
    }

    fn plan_next(&mut self) {
        if self.asked.is_some_and(|at| at.elapsed() > CALM) {
            self.backoff.reset();
        }
        let now = Instant::now();
        self.asked = Some(now);
        self.not_before = Some(now + self.backoff.next_wait());
    }
}

impl Part {
    /// Reads one range; a node that does not know its own host is where it was asked.
    fn read(value: &Value, asked: &str) -> Option<Self> {
        let Value::Array(fields) = value else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = &fields[..] else {
            return None;
        };
        let node = |value: &Value| {
            let Value::Array(fields) = value else {
                return None;
            };
            let [host, Value::Int(port), ..] = &fields[..] else {
                return None;
            };
            let host = match host {
                Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                    std::str::from_utf8(host).ok()?
                }
                _ => asked,
            };
            Some((host.to_owned(), u16::try_from(*port).ok()?))
        };
        Some(Self {
            first: u16::try_from(*first).ok()?,
            last: u16::try_from(*last)
                .ok()
                .filter(|last| *last < Slot::COUNT)?,
            nodes: nodes.iter().map(node).collect::<Option<_>>()?,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_range_names_its_master_first() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let range = |nodes: Vec<Value>| {
            let slots = vec![Value::Int(0), Value::Int(5460)];
            Value::Array(slots.into_iter().chain(nodes).collect())
        };
        let nodes = vec![node(bulk("10.0.0.1"), 7000), node(Value::Nil, 7003)];
        let part = Part::read(&range(nodes), "asked").expect("a range");
        assert_eq!((part.first, part.last), (0, 5460));
        assert_eq!(
            part.nodes,
            [("10.0.0.1".to_owned(), 7000), ("asked".to_owned(), 7003)]
        );
        assert_eq!(Part::read(&range(vec![bulk("x")]), "asked"), None);
        assert_eq!(Part::read(&Value::Nil, "asked"), None);
    }

    #[test]
    fn hosts_may_hold_colons() {
        assert_eq!(host_and_port("::1:6379"), Some(("::1", 6379)));
        assert_eq!(host_and_port("[::1]:6379"), Some(("::1", 6379)));
        assert_eq!(host_and_port("host:6379"), Some(("host", 6379)));
        assert_eq!(host_and_port("host"), None);
    }
}
