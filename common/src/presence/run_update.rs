//! Changes of a run that are not events of it: the run was lost, came back, ended, was sealed, was
//! redacted or was deleted, or its agents fell silent or came back.
//!
//! | channel | message | subscriber |
//! |---|---|---|
//! | `{p}:run:<run>:state` | one [`RunUpdate`] | gateways, for viewers of the run |
//! | `updates` | a list of [`RunUpdate`]s | gateways, for the feed of all runs |
//!
//! Postgres holds the same data. A message is a hint that may be lost or delivered twice.

use redis::Cmd;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::presence::heartbeat::Health;
use crate::protocol::keys::Keys;

/// The status of a run that was deleted.
pub const DELETED_STATUS: &str = "deleted";

/// Bound on the updates in one message on `updates`.
const MAX_MESSAGE_UPDATES: usize = 100;

/// The state of a run, and its agents whose health changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUpdate {
    /// Always `state`, so that a viewer can tell it from other frames.
    pub kind: UpdateKind,
    /// The run.
    pub run: Uuid,
    /// Its status.
    pub status: String,
    /// Whether every variation has reported its end.
    pub ended: bool,
    /// Whether it has ended and everything published is stored.
    pub sealed: bool,
    /// Events that its producers counted but that are not stored.
    pub missing: u64,
    /// Agents whose health changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentUpdate>,
    /// Events of the run were redacted: what was read of it before is to be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
}

impl RunUpdate {
    /// The update of a run that was deleted, its last one.
    #[must_use]
    pub fn deleted(run: Uuid) -> Self {
        Self {
            kind: UpdateKind::State,
            run,
            status: DELETED_STATUS.to_owned(),
            ended: true,
            sealed: false,
            missing: 0,
            agents: Vec::new(),
            redacted: false,
        }
    }

    /// Whether the run was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.status == DELETED_STATUS
    }
}

/// The kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateKind {
    /// An update of a run.
    #[default]
    State,
}

/// An agent whose health changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpdate {
    /// The agent.
    pub agent: Uuid,
    /// The variation that it publishes for.
    pub variation: u16,
    /// Its health.
    pub health: Health,
}

/// Publishes updates to the feed of all runs.
pub async fn publish_to_feed(
    redis: &Redis,
    keys: &Keys,
    updates: &[RunUpdate],
) -> Result<(), RedisFailure> {
    for batch in updates.chunks(MAX_MESSAGE_UPDATES) {
        // Every node broadcasts `PUBLISH`, so any slot will do.
        let slot = keys.run(batch[0].run).slot;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys.updates()).arg(json(&batch));
        redis.query::<u64>(slot, &publish).await?;
    }
    Ok(())
}

/// Publishes an update to the viewers of its run.
pub async fn publish_to_viewers(
    redis: &Redis,
    keys: &Keys,
    update: &RunUpdate,
) -> Result<(), RedisFailure> {
    let keys = keys.run(update.run);
    let mut publish: Cmd = redis::cmd("SPUBLISH");
    publish.arg(&keys.updates).arg(json(update));
    redis.query::<u64>(keys.slot, &publish).await.map(drop)
}

fn json(value: &impl Serialize) -> String {
    // Serializing flat structures of strings and numbers cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_round_trips_as_one_line_of_json() {
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
            redacted: false,
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
