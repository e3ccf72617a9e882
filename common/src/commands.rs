//! Commands to agents: the contract between the gateway, which sends them, and the agents.
//!
//! The commands of a run wait in a Redis Stream of their own. A command has one entry for each
//! variation that it addresses: each agent deletes its own entry when it has answered, and takes
//! none from the others. So an agent that was away or restarted still gets its commands. Agents use
//! a blocking `XREAD`, which starts from the beginning after each connect, and skip a command whose
//! id they have seen.
//!
//! The gateway publishes the event `requested` before it sends the command, because an agent may
//! answer within a millisecond. If the command then cannot be sent, the gateway publishes
//! `refused`. A waiting command is lost with a lost Redis; viewers then see only `requested`.
//!
//! Bounds: [`MAX_PENDING_COMMANDS`] entries per run, [`MAX_COMMAND_BYTES`] each. Time: commands
//! wait for [`COMMAND_TTL`] after the last one, and no longer than the run: `settle.lua` deletes
//! the rest when the run is over, so that no later attempt gets them.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};
use uuid::Uuid;

use crate::protocol::event::Action;
use crate::protocol::keys::RunKeys;
use crate::scripts::{call, unexpected_reply};

static CONTROL_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/control.lua")));

/// Bound on the waiting entries of one run: four commands to each of 256 variations. People send
/// commands, so more than this can only wait where no agent answers.
pub const MAX_PENDING_COMMANDS: usize = 1024;

/// Bound on the input text of one command: some lines typed by hand. All waiting commands of a run
/// stay below 4 MiB.
pub const MAX_COMMAND_BYTES: usize = 4 * 1024;

/// How long commands wait for an agent that is away: longer than any weekend.
pub const COMMAND_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// A command to send to variations of a run.
#[derive(Debug, Clone, Copy)]
pub struct SendCommand<'a> {
    /// Its id.
    pub id: Uuid,
    /// What the agents must do.
    pub action: Action,
    /// Who sends it.
    pub by: &'a str,
    /// The text of [`Action::Input`]; empty for other actions.
    pub data: &'a str,
    /// The variations that it addresses.
    pub variations: &'a [u16],
}

/// The result of sending a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandResult {
    /// It waits for its agents.
    Waiting,
    /// It was not added: too many commands wait already.
    Full,
}

impl SendCommand<'_> {
    /// Calls the script. Do not repeat it after an error with an unknown outcome: that could add
    /// the command twice. Agents would still execute it once, by its id.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<CommandResult, RedisError> {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(CONTROL_SCRIPT.get_hash())
            .arg(2)
            .arg(&keys.control)
            .arg(&keys.notices)
            .arg(self.id.to_string())
            .arg(self.action.name())
            .arg(self.by)
            .arg(self.data)
            .arg(MAX_PENDING_COMMANDS)
            .arg(COMMAND_TTL.as_secs())
            .arg(self.variations);
        match call(&CONTROL_SCRIPT, &command, connection).await? {
            Value::BulkString(word) if word == b"ok" => Ok(CommandResult::Waiting),
            Value::BulkString(word) if word == b"full" => Ok(CommandResult::Full),
            _ => Err(unexpected_reply("control")),
        }
    }
}

/// The position before the first entry, where an agent starts to read.
pub const STREAM_START: &str = "0-0";

/// The `XREAD` that waits at most `timeout` for commands after an entry.
#[must_use]
pub fn read(keys: &RunKeys, after: &str, timeout: Duration) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command
        .arg("COUNT")
        .arg(MAX_PENDING_COMMANDS)
        .arg("BLOCK")
        .arg(timeout.as_millis().to_string())
        .arg("STREAMS")
        .arg(&keys.control)
        .arg(after);
    command
}

/// The `XREAD` of the commands after an entry that waits for none.
#[must_use]
pub fn read_now(keys: &RunKeys, after: &str) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command
        .arg("COUNT")
        .arg(MAX_PENDING_COMMANDS)
        .arg("STREAMS")
        .arg(&keys.control)
        .arg(after);
    command
}

/// The `XDEL` that removes an answered command.
#[must_use]
pub fn acknowledge(keys: &RunKeys, entry: &str) -> Cmd {
    let mut command = redis::cmd("XDEL");
    command.arg(&keys.control).arg(entry);
    command
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEntry {
    /// Id of the entry.
    pub entry: String,
    /// The command; none if this version does not know it.
    pub command: Option<Command>,
}

/// A command as an agent receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id.
    pub id: Uuid,
    /// What the agent must do.
    pub action: Action,
    /// The variation that it addresses.
    pub variation: u16,
    /// Who sent it.
    pub by: String,
    /// The text of [`Action::Input`].
    pub data: String,
}

/// Parses the reply to [`read`]. A timeout gives no entries.
pub fn parse(reply: Value) -> Result<Vec<CommandEntry>, RedisError> {
    type Fields = HashMap<String, String>;
    type Streams = HashMap<String, Vec<(String, Fields)>>;
    let streams: Option<Streams> = redis::from_redis_value(reply)?;
    let entries = streams.into_iter().flatten().flat_map(|(_, all)| all);
    Ok(entries
        .map(|(entry, fields)| CommandEntry {
            entry,
            command: Command::from_fields(&fields),
        })
        .collect())
}

impl Command {
    fn from_fields(fields: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            id: Uuid::try_parse(fields.get("id")?).ok()?,
            action: fields.get("command")?.parse().ok()?,
            variation: fields.get("variation")?.parse().ok()?,
            by: fields.get("by")?.clone(),
            data: fields.get("data").cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn item(entry: &str, fields: &[&str]) -> Value {
        let fields = fields.iter().map(|text| bulk(text)).collect();
        Value::Array(vec![bulk(entry), Value::Array(fields)])
    }

    #[test]
    fn unknown_command_does_not_hide_later_ones() {
        let id = "01938f5e-0000-7000-8000-000000000001";
        let fields = |command| ["id", id, "command", command, "variation", "3", "by", "me"];
        let entries = vec![item("1-0", &fields("dance")), item("2-0", &fields("input"))];
        let reply = Value::Map(vec![(bulk("key"), Value::Array(entries))]);
        let read = parse(reply).expect("entries");
        assert_eq!((read[0].entry.as_str(), &read[0].command), ("1-0", &None));
        let command = read[1].command.clone().expect("a command");
        assert_eq!((command.action, command.variation), (Action::Input, 3));
        assert_eq!((command.by.as_str(), command.data.as_str()), ("me", ""));
        assert_eq!(parse(Value::Nil).expect("nothing"), []);
    }
}
