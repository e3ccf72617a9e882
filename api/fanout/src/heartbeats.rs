//! The last sign of life of each agent of a watched run, for its viewers.
//!
//! Bounded by [`MAX_AGENTS`], the longest silent one goes first; an agent that was lost is forgotten, as its
//! key in Redis is. Each has a number, so that a viewer that was told of one is told only of newer ones.

use std::collections::HashMap;

use runcast_common::presence::heartbeat::{Heartbeat, LOST_AFTER};
use runcast_common::protocol::limits::MAX_VARIATIONS;
use tokio::time::Instant;
use uuid::Uuid;

/// Agents of one run whose pulses are kept: one for each variation that there may be, and as many that have just been
/// replaced.
const MAX_AGENTS: usize = 2 * MAX_VARIATIONS as usize;

/// What was heard of late.
#[derive(Debug, Default)]
pub(super) struct LatestHeartbeats {
    heard: HashMap<Uuid, Heard>,
    newest: u64,
}

#[derive(Debug)]
struct Heard {
    number: u64,
    at: Instant,
    pulse: Heartbeat,
}

impl LatestHeartbeats {
    /// Takes in what was published on the run's channel; true if it is a pulse.
    pub(super) fn take(&mut self, message: &[u8], now: Instant) -> bool {
        let Ok(pulse) = serde_json::from_slice::<Heartbeat>(message) else {
            return false;
        };
        self.heard.retain(|_, heard| now - heard.at < LOST_AFTER);
        if self.heard.len() >= MAX_AGENTS && !self.heard.contains_key(&pulse.agent) {
            let oldest = self.heard.iter().min_by_key(|(_, heard)| heard.at);
            if let Some(agent) = oldest.map(|(agent, _)| *agent) {
                self.heard.remove(&agent);
            }
        }
        self.newest += 1;
        let heard = Heard {
            number: self.newest,
            at: now,
            pulse,
        };
        self.heard.insert(heard.pulse.agent, heard);
        true
    }

    /// The number of the newest; 0 before the first.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Those with a number above this one, oldest first.
    pub(super) fn after(&self, number: u64) -> Vec<Heartbeat> {
        let newer = self.heard.values().filter(|heard| heard.number > number);
        let mut newer: Vec<&Heard> = newer.collect();
        newer.sort_by_key(|heard| heard.number);
        newer.into_iter().map(|heard| heard.pulse.clone()).collect()
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

    fn times(pulses: &[Heartbeat]) -> Vec<u64> {
        pulses.iter().map(|pulse| pulse.time).collect()
    }

    #[test]
    fn only_the_newest_of_each_agent_is_kept_until_it_is_lost() {
        let mut pulses = LatestHeartbeats::default();
        let now = Instant::now();
        assert!(!pulses.take(b"nonsense", now));
        assert!(pulses.take(message(1, 10).as_bytes(), now));
        assert!(pulses.take(message(2, 20).as_bytes(), now));
        let told = pulses.newest();
        assert!(pulses.take(message(1, 30).as_bytes(), now));
        assert_eq!(times(&pulses.after(0)), [20, 30]);
        assert_eq!(times(&pulses.after(told)), [30]);
        assert!(pulses.take(message(3, 40).as_bytes(), now + LOST_AFTER));
        assert_eq!(times(&pulses.after(0)), [40]);
    }

    #[test]
    fn agents_are_bounded() {
        let mut pulses = LatestHeartbeats::default();
        for agent in 1..=3000 {
            assert!(pulses.take(message(agent, 1).as_bytes(), Instant::now()));
        }
        assert_eq!(pulses.after(0).len(), MAX_AGENTS);
    }
}
