//! Who lives, as the worker learns it: the other end of [`crate::presence::heartbeat`].
//!
//! Each partition has a sorted set of its agents by the time of their last sign of life, and one of
//! those that are new or came back. So a look costs one call for each of the 64 partitions, however
//! many agents there are, and an agent costs the worker something only when its state changes. What
//! was read is taken off only if the agent was not heard meanwhile, so no change is lost when the
//! worker dies between the two.
//!
//! Time is Redis' own. A look shows silent agents only if somebody has looked for [`LivenessThresholds::lost`]
//! without a gap of more than [`LivenessThresholds::gap`]: after an outage of Redis nobody is called lost who could not
//! be heard.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::presence::heartbeat::{LOST_AFTER, STALE_AFTER};
use crate::protocol::keys::{FleetKeys, Slot};
use crate::scripts::{call, unexpected};

static LOOK: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/find_silent.lua")));
static FORGET: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/remove_unchanged.lua")));

/// How long a silence means what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessThresholds {
    /// After so long an agent is doubted.
    pub stale: Duration,
    /// After so long it is lost.
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
    /// Longest time between two looks that does not count as an outage: shorter than the silence after
    /// which an agent is lost, by two pulses of six.
    #[must_use]
    pub fn gap(&self) -> Duration {
        self.lost * 2 / 3
    }
}

/// Agents of each sort that one look at a partition shows at most; the next one shows more. So a round
/// over all partitions stays well within the worker's lease, even if all agents start at once.
pub const MAX_AGENTS_PER_SCAN: usize = 100;

/// An agent, and when it was heard, by Redis' clock in Unix milliseconds.
pub type LastHeard = (Uuid, u64);

/// Members of a sorted set with their scores.
type Scored = Vec<(String, f64)>;

/// What a look at a partition showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilentAgents {
    /// Redis' clock, Unix milliseconds.
    pub now: u64,
    /// Agents that were heard first, or again after a silence.
    pub news: Vec<LastHeard>,
    /// Agents that were not heard for [`LivenessThresholds::stale`] or longer.
    pub silent: Vec<LastHeard>,
}

impl SilentAgents {
    /// True if an agent that was heard at this time is lost.
    #[must_use]
    pub fn is_lost(&self, heard: u64, silence: &LivenessThresholds) -> bool {
        Duration::from_millis(self.now.saturating_sub(heard)) >= silence.lost
    }
}

/// Looks at a partition.
///
/// # Errors
/// The connection's own.
pub async fn look(
    redis: &Redis,
    keys: &FleetKeys,
    silence: &LivenessThresholds,
) -> Result<SilentAgents, RedisFailure> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(LOOK.get_hash()).arg(3);
    command.arg(&[&keys.pulses, &keys.news, &keys.watch]);
    for time in [silence.stale, silence.lost, silence.gap()] {
        command.arg(time.as_millis().to_string());
    }
    command.arg(MAX_AGENTS_PER_SCAN);
    redis
        .run(Slot::of(&keys.pulses), async |connection| {
            let reply: Value = call(&LOOK, &command, connection).await?;
            let (now, news, silent): (u64, Scored, Scored) = redis::from_redis_value(reply)?;
            let heard = |(agent, time): (String, f64)| {
                let agent = Uuid::try_parse(&agent).map_err(|_no_id| unexpected("look"))?;
                // Milliseconds below 2^53, written by our own script.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                Ok::<_, redis::RedisError>((agent, time as u64))
            };
            Ok(SilentAgents {
                now,
                news: news.into_iter().map(heard).collect::<Result<_, _>>()?,
                silent: silent.into_iter().map(heard).collect::<Result<_, _>>()?,
            })
        })
        .await
}

/// Takes agents that were dealt with off `pulses` or `news`, unless they were heard meanwhile.
///
/// # Errors
/// The connection's own; calling it again is safe.
pub async fn forget(redis: &Redis, key: &str, agents: &[LastHeard]) -> Result<(), RedisFailure> {
    if agents.is_empty() {
        return Ok(());
    }
    let mut command = redis::cmd("EVALSHA");
    command.arg(FORGET.get_hash()).arg(1).arg(key);
    for (agent, heard) in agents {
        command.arg(agent.to_string()).arg(*heard);
    }
    let told = redis
        .run(Slot::of(key), async |connection| {
            call(&FORGET, &command, connection).await
        })
        .await;
    told.map(drop)
}

/// Counts agents as heard now that Redis has not heard of: those that lived when Redis lost its
/// memory. If they live they will be heard; if not they are lost in due time.
///
/// # Errors
/// The connection's own; calling it again is safe.
pub async fn expect(
    redis: &Redis,
    keys: &FleetKeys,
    agents: &[Uuid],
    now: u64,
) -> Result<(), RedisFailure> {
    if agents.is_empty() {
        return Ok(());
    }
    let mut command = redis::cmd("ZADD");
    command.arg(&keys.pulses).arg("NX");
    for agent in agents {
        command.arg(now).arg(agent.to_string());
    }
    redis
        .query::<u64>(Slot::of(&keys.pulses), &command)
        .await
        .map(drop)
}
