//! The last heartbeat of each agent of a watched run, for its viewers.
//!
//! Data: one heartbeat per agent, each with a number, so that a viewer gets only those that are
//! newer than what it was sent. Bounds: [`MAX_AGENTS`]; beyond that the agent that has been silent
//! longest goes first. Time: an agent is forgotten when it counts as lost, as its key in Redis
//! expires.

use std::collections::HashMap;

use runcast_common::presence::heartbeat::{Heartbeat, LOST_AFTER};
use runcast_common::protocol::limits::MAX_VARIATIONS;
use tokio::time::Instant;
use uuid::Uuid;

/// Agents of one run: one for each variation that a run may have, and as many that were just
/// replaced.
const MAX_AGENTS: usize = 2 * MAX_VARIATIONS as usize;

/// The last heartbeats of a run.
#[derive(Debug, Default)]
pub(crate) struct LatestHeartbeats {
    agents: HashMap<Uuid, Received>,
    newest: u64,
}

#[derive(Debug)]
struct Received {
    number: u64,
    at: Instant,
    heartbeat: Heartbeat,
}

impl LatestHeartbeats {
    /// Keeps what was published on the run's channel. Returns whether it is a heartbeat.
    pub(crate) fn insert(&mut self, message: &[u8], now: Instant) -> bool {
        let Some(heartbeat) = Heartbeat::parse(message) else {
            return false;
        };
        self.agents
            .retain(|_, received| now - received.at < LOST_AFTER);
        if self.agents.len() >= MAX_AGENTS && !self.agents.contains_key(&heartbeat.agent) {
            let oldest = self.agents.iter().min_by_key(|(_, received)| received.at);
            if let Some(agent) = oldest.map(|(agent, _)| *agent) {
                self.agents.remove(&agent);
            }
        }
        self.newest += 1;
        let received = Received {
            number: self.newest,
            at: now,
            heartbeat,
        };
        self.agents.insert(received.heartbeat.agent, received);
        true
    }

    /// The number of the newest heartbeat; 0 before the first.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The heartbeats with a number above this one, oldest first.
    pub(crate) fn after(&self, number: u64) -> Vec<Heartbeat> {
        let newer = self.agents.values().filter(|one| one.number > number);
        let mut newer: Vec<&Received> = newer.collect();
        newer.sort_by_key(|one| one.number);
        newer.into_iter().map(|one| one.heartbeat.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(agent: u128, time: u64) -> String {
        let agent = Uuid::from_u128(agent);
        format!(
            r#"{{"kind":"heartbeat","variation":0,"time":{time},"agent":"{agent}","published":1,"unstored":0}}"#
        )
    }

    fn times(heartbeats: &[Heartbeat]) -> Vec<u64> {
        heartbeats.iter().map(|one| one.time).collect()
    }

    #[test]
    fn the_newest_heartbeat_of_each_agent_is_kept_until_the_agent_is_lost() {
        let mut heartbeats = LatestHeartbeats::default();
        let now = Instant::now();
        assert!(!heartbeats.insert(b"nonsense", now));
        assert!(heartbeats.insert(message(1, 10).as_bytes(), now));
        assert!(heartbeats.insert(message(2, 20).as_bytes(), now));
        let sent = heartbeats.newest();
        assert!(heartbeats.insert(message(1, 30).as_bytes(), now));
        assert_eq!(times(&heartbeats.after(0)), [20, 30]);
        assert_eq!(times(&heartbeats.after(sent)), [30]);
        assert!(heartbeats.insert(message(3, 40).as_bytes(), now + LOST_AFTER));
        assert_eq!(times(&heartbeats.after(0)), [40]);
    }

    #[test]
    fn agents_are_bounded() {
        let mut heartbeats = LatestHeartbeats::default();
        for agent in 1..=3000 {
            assert!(heartbeats.insert(message(agent, 1).as_bytes(), Instant::now()));
        }
        assert_eq!(heartbeats.after(0).len(), MAX_AGENTS);
    }
}
