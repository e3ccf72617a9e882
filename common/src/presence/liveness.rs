//! Which agents fell silent or came back: the worker's side of [`crate::presence::heartbeat`].
//!
//! Each partition has two sorted sets: `pulses`, its agents by the time of their last heartbeat,
//! and `pulses:new`, those that are new or came back. So one scan costs one call for each of the 64
//! partitions, however many agents there are, and an agent costs the worker work only when its
//! state changes. The worker removes an agent it has handled only if no heartbeat has arrived
//! meanwhile, so a worker that dies in between loses no change.
//!
//! Agents write to these sets themselves, and may write anything. A scan removes what is no
//! heartbeat, and counts it.
//!
//! Times are those of Redis. A scan reports silent agents only after workers have scanned for
//! [`LivenessThresholds::lost`] without a gap longer than [`LivenessThresholds::max_gap`]: after an
//! outage of Redis, agents that could not send heartbeats do not count as lost.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::presence::heartbeat::{LOST_AFTER, STALE_AFTER};
use crate::protocol::keys::{HeartbeatKeys, Slot};
use crate::scripts::call;

static FIND_SILENT_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/find_silent.lua")));
static REMOVE_UNCHANGED_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/remove_unchanged.lua")));

/// The silence after which an agent is stale, and lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessThresholds {
    /// Silence after which an agent is stale.
    pub stale: Duration,
    /// Silence after which an agent is lost.
    pub lost: Duration,
}

impl Default for LivenessThresholds {
    fn default() -> Self {
        Self {
            stale: STALE_AFTER,
            lost: LOST_AFTER,
        }
    }
}

impl LivenessThresholds {
    /// The longest time between two scans that does not count as an outage: two thirds of `lost`,
    /// so two heartbeats of six fit into the rest.
    #[must_use]
    pub fn max_gap(&self) -> Duration {
        self.lost * 2 / 3
    }
}

/// Bound on the agents of each list that one scan of a partition returns; the next scan returns
/// more. So scanning all partitions stays well within the worker's lease, even if all agents start
/// at once.
pub const MAX_SCAN_AGENTS: usize = 100;

/// An agent and the time of its last heartbeat, by the clock of Redis in Unix milliseconds.
pub type LastHeard = (Uuid, u64);

/// Members of a sorted set with their scores, as the script returns them.
type Heard = Vec<(String, u64)>;

/// The result of scanning a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilentAgents {
    /// The clock of Redis, Unix milliseconds.
    pub now: u64,
    /// Agents that are new, or that came back after a silence.
    pub returned: Vec<LastHeard>,
    /// Agents silent for [`LivenessThresholds::stale`] or longer.
    pub silent: Vec<LastHeard>,
    /// How much was removed that no heartbeat has written.
    pub removed: u64,
    /// One of the bounds was reached: another scan finds more.
    pub has_more: bool,
}

impl SilentAgents {
    /// Returns whether an agent whose last heartbeat was at `last_heartbeat` is lost.
    #[must_use]
    pub fn is_lost(&self, last_heartbeat: u64, thresholds: &LivenessThresholds) -> bool {
        Duration::from_millis(self.now.saturating_sub(last_heartbeat)) >= thresholds.lost
    }
}

/// Scans a partition for agents that are new, came back or fell silent.
pub async fn find_silent(
    redis: &Redis,
    keys: &HeartbeatKeys,
    thresholds: &LivenessThresholds,
) -> Result<SilentAgents, RedisFailure> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(FIND_SILENT_SCRIPT.get_hash()).arg(3);
    command.arg(&[&keys.last_heartbeats, &keys.returned, &keys.watch]);
    for time in [thresholds.stale, thresholds.lost, thresholds.max_gap()] {
        command.arg(time.as_millis().to_string());
    }
    command.arg(MAX_SCAN_AGENTS);
    redis
        .run(Slot::of(&keys.last_heartbeats), async |connection| {
            let reply: Value = call(&FIND_SILENT_SCRIPT, &command, connection).await?;
            let (now, returned, silent, removed, has_more): (u64, Heard, Heard, u64, u64) =
                redis::from_redis_value(reply)?;
            let is_full = returned.len().max(silent.len()) >= MAX_SCAN_AGENTS;
            Ok(SilentAgents {
                now,
                returned: last_heard(returned),
                silent: last_heard(silent),
                removed,
                has_more: is_full || has_more > 0,
            })
        })
        .await
}

/// The agents among the members. The script has removed what does not look like an id.
fn last_heard(heard: Heard) -> Vec<LastHeard> {
    let agents = heard.into_iter();
    agents
        .filter_map(|(agent, time)| Some((Uuid::try_parse(&agent).ok()?, time)))
        .collect()
}

/// Removes agents that the worker has handled from the sorted set `key` (`pulses` or `pulses:new`),
/// unless a heartbeat has arrived meanwhile. Safe to repeat.
pub async fn remove_unchanged(
    redis: &Redis,
    key: &str,
    agents: &[LastHeard],
) -> Result<(), RedisFailure> {
    if agents.is_empty() {
        return Ok(());
    }
    let mut command = redis::cmd("EVALSHA");
    command
        .arg(REMOVE_UNCHANGED_SCRIPT.get_hash())
        .arg(1)
        .arg(key);
    for (agent, last_heartbeat) in agents {
        command.arg(agent.to_string()).arg(*last_heartbeat);
    }
    let removed = redis
        .run(Slot::of(key), async |connection| {
            call(&REMOVE_UNCHANGED_SCRIPT, &command, connection).await
        })
        .await;
    removed.map(drop)
}

/// Adds agents that `pulses` does not contain, as if their last heartbeat were at `now`: those that
/// were alive when Redis lost its data. Either their next heartbeat arrives, or they become lost
/// after the usual time. Safe to repeat.
pub async fn assume_alive(
    redis: &Redis,
    keys: &HeartbeatKeys,
    agents: &[Uuid],
    now: u64,
) -> Result<(), RedisFailure> {
    if agents.is_empty() {
        return Ok(());
    }
    let mut command = redis::cmd("ZADD");
    command.arg(&keys.last_heartbeats).arg("NX");
    for agent in agents {
        command.arg(now).arg(agent.to_string());
    }
    redis
        .query::<u64>(Slot::of(&keys.last_heartbeats), &command)
        .await
        .map(drop)
}
