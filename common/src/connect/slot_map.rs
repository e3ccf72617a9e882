//! The slot map of a Redis Cluster: which master holds which of the 16,384 slots, and the reply of
//! `CLUSTER SLOTS` that it is built from. A binary search over disjoint ranges finds a slot.

use std::collections::HashMap;

use redis::{RedisError, Value};

use super::dial::Dial;
use super::server::Server;
use crate::protocol::keys::Slot;

/// The masters of a cluster by slot. Generation 0 is empty: nothing was fetched yet.
#[derive(Default)]
pub(super) struct SlotMap {
    pub(super) generation: u64,
    /// In order, without overlap.
    ranges: Vec<MasterRange>,
    pub(super) masters: Vec<Server>,
    pub(super) replicas: Vec<Dial>,
}

/// Consecutive slots of one master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MasterRange {
    last: u16,
    first: u16,
    /// Index in [`SlotMap::masters`].
    master: usize,
}

/// One range of slots in a reply of `CLUSTER SLOTS`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    first: u16,
    last: u16,
    /// Host and port of the master, then of its replicas.
    nodes: Vec<(String, u16)>,
}

impl SlotMap {
    /// Builds the successor of `old`. Masters that `old` knows keep their connections; others get
    /// the settings of `seed`.
    pub(super) fn build(ranges: &[SlotRange], seed: &Dial, old: &Self) -> Result<Self, RedisError> {
        let mut map = Self {
            generation: old.generation + 1,
            ..Self::default()
        };
        let mut master_indexes: HashMap<String, usize> = HashMap::new();
        let mut replicas: HashMap<String, Dial> = HashMap::new();
        for range in ranges {
            let mut dials = range.nodes.iter().map(|(host, port)| seed.at(host, *port));
            let Some(dial) = dials.next() else { continue };
            let address = dial.address();
            let master = match master_indexes.get(&address) {
                Some(index) => *index,
                None => {
                    let known = old.masters.iter().find(|one| one.address() == address);
                    map.masters.push(match known {
                        Some(server) => server.clone(),
                        None => Server::fixed(&dial)?,
                    });
                    master_indexes.insert(address, map.masters.len() - 1);
                    map.masters.len() - 1
                }
            };
            map.ranges.push(MasterRange {
                first: range.first,
                last: range.last,
                master,
            });
            replicas.extend(dials.map(|dial| (dial.address(), dial)));
        }
        map.ranges.sort_by_key(|range| range.first);
        map.replicas = replicas.into_values().collect();
        Ok(map)
    }

    /// The master that holds a slot.
    pub(super) fn master(&self, slot: Slot) -> Option<&Server> {
        let number = slot.number();
        let at = self.ranges.partition_point(|range| range.last < number);
        let range = self.ranges.get(at).filter(|range| range.first <= number)?;
        self.masters.get(range.master)
    }

    /// Returns whether both maps assign every slot to the same connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.ranges == other.ranges
            && self.masters.len() == other.masters.len()
            && self
                .masters
                .iter()
                .zip(&other.masters)
                .all(|(one, two)| one.is_same(two))
    }
}

impl SlotRange {
    /// Parses one range. A node that does not know its own host is reported by the host `queried`.
    pub(super) fn parse(value: &Value, queried: &str) -> Option<Self> {
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
                _ => queried,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn slot_range_lists_its_master_first() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let range = |nodes: Vec<Value>| {
            let slots = vec![Value::Int(0), Value::Int(5460)];
            Value::Array(slots.into_iter().chain(nodes).collect())
        };
        let nodes = vec![node(bulk("10.0.0.1"), 7000), node(Value::Nil, 7003)];
        let parsed = SlotRange::parse(&range(nodes), "queried").expect("a range");
        assert_eq!((parsed.first, parsed.last), (0, 5460));
        assert_eq!(
            parsed.nodes,
            [("10.0.0.1".to_owned(), 7000), ("queried".to_owned(), 7003)]
        );
        assert_eq!(SlotRange::parse(&range(vec![bulk("x")]), "queried"), None);
        assert_eq!(SlotRange::parse(&Value::Nil, "queried"), None);
    }
}
