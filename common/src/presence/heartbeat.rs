//! The pulse of an agent: a sign of life every [`HEARTBEAT_INTERVAL`], from the agent to whoever watches.
//!
//! It is no event of the run: it is not stored, has no id, and a lost one costs nothing. It stands in a key of its
//! own that expires, so silence shows by itself, and goes to the viewers of the run by a channel beside its bell:
//! a run that nobody watches costs a few small commands every five seconds, and no row.
//!
//! | where | what | life |
//! |---|---|---|
//! | `agent:<agent>` | [`Agent`]: what it says of itself | [`AGENT_TTL`] after its last pulse |
//! | `agent:<agent>:heartbeat` | [`Heartbeat`]: its last one | [`LOST_AFTER`] |
//! | `{p}:run:<run>:pulse` | [`Heartbeat`], published as it comes | none |
//! | `{p}:pulses`, `{p}:pulses:new` | when each was heard last, and who is new: see [`crate::presence::liveness`] | until lost |
//!
//! An agent's id is that of its producer.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::protocol::event::Kind;
use crate::protocol::keys::{Keys, RunKeys, Slot};
use crate::scripts::call;

static BEAT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/heartbeat.lua")));

/// Time between two pulses. Three may be lost before an agent counts as stale.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Silence after which an agent that is heard again is news for the worker: one pulse was late. Whatever thresholds the
/// worker has, they are longer.
pub const NEWS_AFTER: Duration = Duration::from_millis(7500);

/// Silence after which an agent is doubted.
pub const STALE_AFTER: Duration = Duration::from_secs(15);

/// Silence after which an agent counts as lost, until it is heard again.
pub const LOST_AFTER: Duration = Duration::from_secs(30);

/// How long it is remembered what an agent said of itself: long enough to tell who was lost.
pub const AGENT_TTL: Duration = Duration::from_secs(300);

/// One sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Always [`Kind::Heartbeat`], so that a viewer tells it from other frames.
    pub kind: Kind,
    /// Which attempt of the run.
    pub variation: u16,
    /// The agent's clock, Unix milliseconds.
    pub time: u64,
    /// Who lives.
    pub agent: Uuid,
    /// Events that it has published so far.
    pub published: u64,
    /// Those of them that Postgres does not hold yet, as far as the agent knows: what its spool is for.
    pub unstored: u64,
    /// Milliseconds since it last published output or log; none if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// Resident memory in bytes, of the agent or of the command it runs, with all descendants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Processors in use since the pulse before: 1.0 is one of them all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The run that it publishes for.
    pub run: Uuid,
    /// Which attempt of it.
    pub variation: u16,
    /// Where it runs.
    pub host: String,
    /// Its process there, or that of the command it runs.
    pub pid: u32,
    /// The version of Runcast that it publishes with.
    pub version: String,
    /// When it started, Unix milliseconds.
    pub started: u64,
}

/// Fields of the hash of an agent, in the order of [`Agent`].
const FIELDS: [&str; 6] = ["run", "variation", "host", "pid", "version", "started"];

impl Agent {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let values = [
            self.run.to_string(),
            self.variation.to_string(),
            self.host.clone(),
            self.pid.to_string(),
            self.version.clone(),
            self.started.to_string(),
        ];
        FIELDS.into_iter().zip(values).collect()
    }

    fn from_fields(fields: &[Option<String>; 6]) -> Option<Self> {
        let [run, variation, host, pid, version, started] = fields.each_ref().map(Option::as_deref);
        Some(Self {
            run: run?.parse().ok()?,
            variation: variation?.parse().ok()?,
            host: host?.to_owned(),
            pid: pid?.parse().ok()?,
            version: version?.to_owned(),
            started: started?.parse().ok()?,
        })
    }
}

/// How long it is since an agent was heard, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Heard of late.
    Alive,
    /// Silent for [`STALE_AFTER`].
    Stale,
    /// Silent for [`LOST_AFTER`]. It may come back.
    Lost,
}

impl Health {
    /// After so long a silence.
    #[must_use]
    pub fn after(silence: Duration) -> Self {
        match silence {
            long if long >= LOST_AFTER => Self::Lost,
            long if long >= STALE_AFTER => Self::Stale,
            _ => Self::Alive,
        }
    }
}

/// An agent as Redis knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentReport {
    /// Its id.
    pub agent: Uuid,
    /// Whether it lives, by the life that is left to its last pulse: Redis' clock alone, no agent's.
    pub health: Health,
    /// What it said of itself.
    #[serde(flatten)]
    pub about: Agent,
    /// Its last pulse, if that is not too long ago.
    pub pulse: Option<Heartbeat>,
}

/// Gives a sign of life.
///
/// # Errors
/// The connection's own. Nothing has to be repeated: the next pulse says all that this one did.
pub async fn beat(
    redis: &Redis,
    keys: &Keys,
    run: &RunKeys,
    agent: &Agent,
    pulse: &Heartbeat,
) -> Result<(), RedisFailure> {
    let text = json(pulse);
    let name = keys.agent(pulse.agent);
    let mut about = redis::pipe();
    about.cmd("HSET").arg(&name).arg(agent.fields()).ignore();
    about.expire(&name, seconds(AGENT_TTL)).ignore();
    let about = &about;
    redis
        .run(Slot::of(&name), async |connection| {
            about.exec_async(connection).await
        })
        .await?;
    let mut heartbeat = redis::cmd("SET");
    let name = keys.heartbeat(pulse.agent);
    heartbeat.arg(&name).arg(&text);
    heartbeat.arg("EX").arg(LOST_AFTER.as_secs());
    redis.query::<()>(Slot::of(&name), &heartbeat).await?;
    let mut publish = redis::cmd("EVALSHA");
    publish.arg(BEAT.get_hash()).arg(3);
    publish.arg(&[&run.fleet.pulses, &run.fleet.news, &run.pulse]);
    publish.arg(pulse.agent.to_string()).arg(&text);
    publish.arg(NEWS_AFTER.as_millis().to_string());
    let told = redis
        .run(run.slot, async |connection| {
            call(&BEAT, &publish, connection).await
        })
        .await;
    told.map(drop)
}

/// What agents say of themselves, of those that are still remembered.
///
/// # Errors
/// The connection's own.
pub async fn about(
    redis: &Redis,
    keys: &Keys,
    agents: &[Uuid],
) -> Result<Vec<(Uuid, Agent)>, RedisFailure> {
    let mut known = Vec::new();
    for &agent in agents {
        let mut command = redis::cmd("HMGET");
        let name = keys.agent(agent);
        command.arg(&name).arg(&FIELDS);
        let fields = redis.query(Slot::of(&name), &command).await?;
        known.extend(Agent::from_fields(&fields).map(|about| (agent, about)));
    }
    Ok(known)
}

/// The agents of a run that are remembered.
///
/// # Errors
/// The connection's own.
pub async fn agents_of(
    redis: &Redis,
    keys: &Keys,
    run: &RunKeys,
) -> Result<Vec<AgentReport>, RedisFailure> {
    let meta: Vec<String> = redis
        .query(run.slot, redis::cmd("HKEYS").arg(&run.meta))
        .await?;
    let producers = meta.iter().filter_map(|field| field.strip_prefix("p:"));
    let ids: Vec<Uuid> = producers
        .filter_map(|id| Uuid::try_parse(id).ok())
        .filter(|id| !id.is_nil())
        .collect();
    let mut known = Vec::new();
    for agent in ids {
        let name = keys.agent(agent);
        let fields = redis
            .query(Slot::of(&name), redis::cmd("HMGET").arg(&name).arg(&FIELDS))
            .await?;
        // One that publishes over HTTP has no pulse.
        let Some(about) = Agent::from_fields(&fields).filter(|about| about.run == run.run) else {
            continue;
        };
        let heartbeat = keys.heartbeat(agent);
        let mut both = redis::pipe();
        both.get(&heartbeat).pttl(&heartbeat);
        let both = &both;
        let (text, left): (Option<String>, i64) = redis
            .run(Slot::of(&heartbeat), async |connection| {
                both.query_async(connection).await
            })
            .await?;
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        known.push(AgentReport {
            agent,
            health: Health::after(LOST_AFTER.saturating_sub(left)),
            about,
            pulse: text.and_then(|text| serde_json::from_str(&text).ok()),
        });
    }
    known.sort_by_key(|one| (one.about.variation, one.about.started));
    Ok(known)
}

fn seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX)
}

fn json(value: &impl Serialize) -> String {
    // Flat structures of strings and finite numbers: writing them cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_in_two_steps() {
        let after = |seconds| Health::after(Duration::from_secs(seconds));
        assert_eq!(after(0), Health::Alive);
        assert_eq!(after(14), Health::Alive);
        assert_eq!(after(15), Health::Stale);
        assert_eq!(after(30), Health::Lost);
    }

    #[test]
    fn a_pulse_is_one_line_that_reads_back() {
        let pulse = Heartbeat {
            kind: Kind::Heartbeat,
            variation: 2,
            time: 7,
            agent: Uuid::from_u128(1),
            published: 3,
            unstored: 1,
            quiet_ms: None,
            rss: Some(4096),
            cpu: Some(0.5),
        };
        let text = json(&pulse);
        assert!(
            text.starts_with(r#"{"kind":"heartbeat","variation":2,"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<Heartbeat>(&text).expect("JSON"),
            pulse
        );
    }
}
