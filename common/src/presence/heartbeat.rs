//! Heartbeats: every [`HEARTBEAT_INTERVAL`] an agent reports that it is alive, and its load.
//!
//! A heartbeat is not an event of the run: it is not stored, has no id, and losing one costs
//! nothing. It is kept in a key that expires, so silence needs no detection, and is published to
//! the viewers of the run on a channel beside its wake-ups. A run that no viewer watches costs a
//! few small commands every five seconds and no row in Postgres.
//!
//! | key or channel | content | time to live |
//! |---|---|---|
//! | `agent:<agent>` | [`Agent`], its description | [`AGENT_TTL`] after the last heartbeat |
//! | `agent:<agent>:heartbeat` | the last [`Heartbeat`] | [`LOST_AFTER`] |
//! | `{p}:run:<run>:pulse` | channel of [`Heartbeat`]s | |
//! | `{p}:pulses`, `{p}:pulses:new` | see [`crate::presence::liveness`] | until the agent is lost |
//!
//! The id of an agent is that of its producer.
//!
//! An agent may write anything to its keys. Readers take no value above [`MAX_VALUE_BYTES`] and at
//! most [`MAX_RUN_AGENTS`] agents of a run; what does not parse counts as absent.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::protocol::event::Kind;
use crate::protocol::keys::{Keys, RunKeys, Slot};
use crate::protocol::limits::MAX_VARIATIONS;
use crate::scripts::call;

static READ_AGENT_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/read_agent.lua")));
static LIST_PRODUCERS_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/list_producers.lua")));
static HEARTBEAT_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/heartbeat.lua")));

/// Time between two heartbeats. An agent is stale after three of them are missing.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Silence after which the next heartbeat of an agent counts as a return, which the worker must
/// see. One late heartbeat suffices. The thresholds of the worker are always longer than this.
pub const RETURN_AFTER: Duration = Duration::from_millis(7500);

/// Silence after which an agent is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(15);

/// Silence after which an agent is lost, until its next heartbeat.
pub const LOST_AFTER: Duration = Duration::from_secs(30);

/// How long the description of a silent agent is kept: long enough to report which one was lost.
pub const AGENT_TTL: Duration = Duration::from_secs(300);

/// Longest value of an agent that is read: several times what an agent writes.
const MAX_VALUE_BYTES: usize = 4096;

/// Agents of one run that are read.
const MAX_RUN_AGENTS: usize = 1024;

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Always [`Kind::Heartbeat`], so that a viewer can tell it from other frames.
    pub kind: Kind,
    /// The variation that the agent publishes for.
    pub variation: u16,
    /// The agent's clock, Unix milliseconds.
    pub time: u64,
    /// The agent.
    pub agent: Uuid,
    /// Events published so far.
    pub published: u64,
    /// Published events that Postgres does not hold yet, as far as the agent knows.
    pub unstored: u64,
    /// Milliseconds since the last output or log event; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// Resident memory in bytes of the agent, or of the command that it runs with all descendants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Processors used since the previous heartbeat: 1.0 is one processor all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
}

impl Heartbeat {
    /// Parses what an agent has sent; none if it is no heartbeat.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        if message.len() > MAX_VALUE_BYTES {
            return None;
        }
        let heartbeat: Self = serde_json::from_slice(message).ok()?;
        let is_one = heartbeat.kind == Kind::Heartbeat && heartbeat.variation < MAX_VARIATIONS;
        is_one.then_some(heartbeat)
    }
}

/// The description of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The run that it publishes for.
    pub run: Uuid,
    /// The variation that it publishes for.
    pub variation: u16,
    /// Host name.
    pub host: String,
    /// Process id of the agent, or of the command that it runs.
    pub pid: u32,
    /// Version of Runcast.
    pub version: String,
    /// Start time, Unix milliseconds.
    pub started: u64,
}

/// Fields of the hash `agent:<agent>`, in the order of [`Agent`].
const AGENT_FIELDS: [&str; 6] = ["run", "variation", "host", "pid", "version", "started"];

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
        AGENT_FIELDS.into_iter().zip(values).collect()
    }

    fn from_fields(fields: &[Option<String>; 6]) -> Option<Self> {
        let [run, variation, host, pid, version, started] = fields.each_ref().map(Option::as_deref);
        let variation: u16 = variation?.parse().ok()?;
        Some(Self {
            run: run?.parse().ok()?,
            variation: (variation < MAX_VARIATIONS).then_some(variation)?,
            host: host?.to_owned(),
            pid: pid?.parse().ok()?,
            version: version?.to_owned(),
            started: started?.parse().ok()?,
        })
    }
}

/// Whether an agent is alive, by the time since its last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Silent for less than [`STALE_AFTER`].
    Alive,
    /// Silent for [`STALE_AFTER`] or longer.
    Stale,
    /// Silent for [`LOST_AFTER`] or longer. The agent may come back.
    Lost,
}

impl Health {
    /// The health after this silence.
    fn after(silence: Duration) -> Self {
        match silence {
            long if long >= LOST_AFTER => Self::Lost,
            long if long >= STALE_AFTER => Self::Stale,
            _ => Self::Alive,
        }
    }
}

/// An agent and its health.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentReport {
    /// Its id.
    pub agent: Uuid,
    /// Computed from the remaining time to live of its heartbeat: by the clock of Redis alone.
    pub health: Health,
    /// Its description.
    #[serde(flatten)]
    pub about: Agent,
    /// Its last heartbeat, unless it has expired.
    #[serde(rename = "pulse")]
    pub heartbeat: Option<Heartbeat>,
}

/// Sends a heartbeat. There is no need to retry: the next heartbeat carries everything again.
pub async fn send(
    redis: &Redis,
    keys: &Keys,
    run: &RunKeys,
    agent: &Agent,
    heartbeat: &Heartbeat,
) -> Result<(), RedisFailure> {
    let text = json(heartbeat);
    // Renew the description of the agent.
    let key = keys.agent(heartbeat.agent);
    let mut describe = redis::pipe();
    describe.cmd("HSET").arg(&key).arg(agent.fields()).ignore();
    describe.expire(&key, seconds(AGENT_TTL)).ignore();
    let describe = &describe;
    redis
        .run(Slot::of(&key), async |connection| {
            describe.exec_async(connection).await
        })
        .await?;
    // Store the heartbeat in the slot of the agent.
    let mut store = redis::cmd("SET");
    let key = keys.heartbeat(heartbeat.agent);
    store.arg(&key).arg(&text);
    store.arg("EX").arg(LOST_AFTER.as_secs());
    redis.query::<()>(Slot::of(&key), &store).await?;
    // Publish it in the slot of the run.
    let mut publish = redis::cmd("EVALSHA");
    publish.arg(HEARTBEAT_SCRIPT.get_hash()).arg(3);
    publish.arg(&[
        &run.heartbeat_keys.last_heartbeats,
        &run.heartbeat_keys.returned,
        &run.heartbeats,
    ]);
    publish.arg(heartbeat.agent.to_string()).arg(&text);
    publish.arg(RETURN_AFTER.as_millis().to_string());
    let published = redis
        .run(run.slot, async |connection| {
            call(&HEARTBEAT_SCRIPT, &publish, connection).await
        })
        .await;
    published.map(drop)
}

/// Reads the descriptions of agents, leaving out those that have expired.
pub async fn read_agents(
    redis: &Redis,
    keys: &Keys,
    agents: &[Uuid],
) -> Result<Vec<(Uuid, Agent)>, RedisFailure> {
    let mut descriptions = Vec::new();
    for &agent in agents {
        let description = read_agent(redis, keys, agent).await?;
        descriptions.extend(description.map(|about| (agent, about)));
    }
    Ok(descriptions)
}

/// Reads the agents of a run, leaving out those whose description has expired.
pub async fn read_run_agents(
    redis: &Redis,
    keys: &Keys,
    run: &RunKeys,
) -> Result<Vec<AgentReport>, RedisFailure> {
    let mut list = redis::cmd("EVALSHA");
    list.arg(LIST_PRODUCERS_SCRIPT.get_hash()).arg(1);
    list.arg(&run.meta).arg(MAX_RUN_AGENTS);
    let producers: Vec<String> = redis
        .run(run.slot, async |connection| {
            let reply = call(&LIST_PRODUCERS_SCRIPT, &list, connection).await?;
            Ok(redis::from_redis_value(reply)?)
        })
        .await?;
    let agents: Vec<Uuid> = producers
        .iter()
        .filter_map(|id| Uuid::try_parse(id).ok())
        .filter(|id| !id.is_nil())
        .collect();
    let mut reports = Vec::new();
    for agent in agents {
        // A producer that publishes over HTTP sends no heartbeats.
        let description = read_agent(redis, keys, agent).await?;
        let Some(about) = description.filter(|about| about.run == run.run) else {
            continue;
        };
        let key = keys.heartbeat(agent);
        let mut read = redis::pipe();
        read.cmd("GETRANGE").arg(&key).arg(0).arg(MAX_VALUE_BYTES);
        read.pttl(&key).ignore_errors();
        let read = &read;
        // A key of another type is no heartbeat.
        let replies: Vec<redis::Value> = redis
            .run(Slot::of(&key), async |connection| {
                read.query_async(connection).await
            })
            .await?;
        let (text, ttl_ms) = match &replies[..] {
            [redis::Value::BulkString(text), redis::Value::Int(ttl_ms)] => (&text[..], *ttl_ms),
            _ => (&[][..], -1),
        };
        let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(0));
        reports.push(AgentReport {
            agent,
            health: Health::after(LOST_AFTER.saturating_sub(ttl)),
            about,
            heartbeat: Heartbeat::parse(text),
        });
    }
    reports.sort_by_key(|report| (report.about.variation, report.about.started));
    Ok(reports)
}

async fn read_agent(
    redis: &Redis,
    keys: &Keys,
    agent: Uuid,
) -> Result<Option<Agent>, RedisFailure> {
    let key = keys.agent(agent);
    let mut command = redis::cmd("EVALSHA");
    command.arg(READ_AGENT_SCRIPT.get_hash()).arg(1).arg(&key);
    command.arg(MAX_VALUE_BYTES).arg(&AGENT_FIELDS);
    let fields: [Option<Vec<u8>>; 6] = redis
        .run(Slot::of(&key), async |connection| {
            let reply = call(&READ_AGENT_SCRIPT, &command, connection).await?;
            Ok(redis::from_redis_value(reply)?)
        })
        .await?;
    let fields = fields.map(|field| String::from_utf8(field?).ok());
    Ok(Agent::from_fields(&fields))
}

fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
}

fn json(value: &impl Serialize) -> String {
    // Serializing flat structures of strings and finite numbers cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_agent_becomes_stale_and_then_lost() {
        let after = |seconds| Health::after(Duration::from_secs(seconds));
        assert_eq!(after(0), Health::Alive);
        assert_eq!(after(14), Health::Alive);
        assert_eq!(after(15), Health::Stale);
        assert_eq!(after(30), Health::Lost);
    }

    #[test]
    fn heartbeat_round_trips_as_one_line_of_json() {
        let heartbeat = Heartbeat {
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
        let text = json(&heartbeat);
        assert!(
            text.starts_with(r#"{"kind":"heartbeat","variation":2,"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<Heartbeat>(&text).expect("JSON"),
            heartbeat
        );
    }
}
