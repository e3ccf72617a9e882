//! What changed about a run without being an event of it: it is lost, or found again, or ended and found whole or not; and
//! which of its agents fell silent or came back.
//!
//! | where | what | for whom |
//! |---|---|---|
//! | `{p}:run:<run>:state` | one [`RunUpdate`], published as it comes | viewers of that run, by their gateway |
//! | `updates` | a list of [`RunUpdate`]s | whoever follows all runs |
//!
//! Postgres holds all of it. A message is a hint that may be lost, or come twice.

use redis::Cmd;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::presence::heartbeat::Health;
use crate::protocol::keys::Keys;

/// Updates of one message on `updates`, at most.
const MAX_UPDATES_PER_MESSAGE: usize = 100;

/// How a run stands, and which of its agents changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUpdate {
    /// Always `state`, so that a viewer tells it from other frames.
    pub kind: UpdateKind,
    /// The run.
    pub run: Uuid,
    /// Its status.
    pub status: String,
    /// Every variation has reported its end.
    pub ended: bool,
    /// It has ended, and everything that was published is stored.
    pub sealed: bool,
    /// Events that its producers counted and that are not stored.
    pub missing: u64,
    /// Agents whose health changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentUpdate>,
}

/// The name of an update among frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateKind {
    /// The only one.
    #[default]
    State,
}

/// An agent whose health changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpdate {
    /// Who.
    pub agent: Uuid,
    /// Which attempt of the run it publishes for.
    pub variation: u16,
    /// Whether it lives.
    pub health: Health,
}

/// Tells whoever follows all runs.
///
/// # Errors
/// The connection's own.
pub async fn announce(
    redis: &Redis,
    keys: &Keys,
    updates: &[RunUpdate],
) -> Result<(), RedisFailure> {
    for some in updates.chunks(MAX_UPDATES_PER_MESSAGE) {
        // Any server passes it on; that of the first run is as good as others.
        let slot = keys.run(some[0].run).slot;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys.updates()).arg(json(&some));
        redis.query::<u64>(slot, &publish).await?;
    }
    Ok(())
}

/// Tells the viewers of a run.
///
/// # Errors
/// The connection's own.
pub async fn tell(redis: &Redis, keys: &Keys, update: &RunUpdate) -> Result<(), RedisFailure> {
    let keys = keys.run(update.run);
    let mut publish: Cmd = redis::cmd("SPUBLISH");
    publish.arg(&keys.state).arg(json(update));
    redis.query::<u64>(keys.slot, &publish).await.map(drop)
}

fn json(value: &impl Serialize) -> String {
    // Flat structures of strings and numbers: writing them cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_one_line_that_reads_back() {
        let update = RunUpdate {
            kind: UpdateKind::State,
            run: Uuid::from_u128(1),
            status: "lost".into(),
            ended: false,
            sealed: false,
            missing: 0,
            agents: vec![AgentUpdate {
                agent: Uuid::from_u128(2),
                variation: 1,
                health: Health::Stale,
            }],
        };
        let text = json(&update);
        assert!(text.starts_with(r#"{"kind":"state","run":"#), "{text}");
        assert!(text.contains(r#""health":"stale""#), "{text}");
        assert_eq!(
            serde_json::from_str::<RunUpdate>(&text).expect("JSON"),
            update
        );
    }
}
