//! Commands to agents: the contract of the gateway, which gives them, and the agents, which take them.
//!
//! The commands of a run wait in a Redis Stream of their own, an entry for each variation that a
//! command is for, until the agent of that variation has answered and deleted it: so an agent that was
//! away, or was started again, still gets them. Agents read by a blocking `XREAD`, from the beginning
//! after each connect, and know by its id a command that they have had before.
//!
//! Bounds: [`MAX_PENDING_COMMANDS`] entries of a run, [`MAX_COMMAND_BYTES`] each. Time: [`COMMAND_TTL`] after the last
//! command, and no longer than the run: `settle.lua` deletes what is left when the run is over.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};
use uuid::Uuid;

use crate::protocol::event::Action;
use crate::protocol::keys::RunKeys;
use crate::scripts::{call, unexpected_reply};

static SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("../scripts/control.lua")));

/// Entries of one run that may wait: four commands to each of 256 variations. Commands come from
/// people; more than this waits only where no agent answers.
pub const MAX_PENDING_COMMANDS: usize = 1024;

/// Bytes of input with one command: some lines typed by hand. All that wait are below 4 MiB.
pub const MAX_COMMAND_BYTES: usize = 4 * 1024;

/// How long commands wait for an agent that does not come: longer than any weekend.
pub const COMMAND_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// A command that is given to variations of a run.
#[derive(Debug, Clone, Copy)]
pub struct SendCommand<'a> {
    /// Its id.
    pub id: Uuid,
    /// What is wanted.
    pub action: Action,
    /// Who wants it.
    pub by: &'a str,
    /// The text of [`Action::Input`]; empty for others.
    pub data: &'a str,
    /// Which variations shall take it.
    pub variations: &'a [u16],
}

/// What became of a command that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandResult {
    /// It waits for the agents.
    Waiting,
    /// Nothing was added: too many commands wait already.
    Full,
}

impl SendCommand<'_> {
    /// Calls the script. It is not to be called again after an error with an unknown outcome, since
    /// it would be given twice; agents then take it once all the same, by its id.
    ///
    /// # Errors
    /// The connection's own, or a reply of another shape.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<CommandResult, RedisError> {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(SCRIPT.get_hash())
            .arg(1)
            .arg(&keys.control)
            .arg(self.id.to_string())
            .arg(self.action.name())
            .arg(self.by)
            .arg(self.data)
            .arg(MAX_PENDING_COMMANDS)
            .arg(COMMAND_TTL.as_secs())
            .arg(self.variations);
        match call(&SCRIPT, &command, connection).await? {
            Value::BulkString(word) if word == b"ok" => Ok(CommandResult::Waiting),
            Value::BulkString(word) if word == b"full" => Ok(CommandResult::Full),
            _ => Err(unexpected_reply("control")),
        }
    }
}

/// Where an agent starts to read.
pub const STREAM_START: &str = "0-0";

/// Waits at most `patience` for commands behind an entry.
#[must_use]
pub fn read(keys: &RunKeys, after: &str, patience: Duration) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command
        .arg("COUNT")
        .arg(MAX_PENDING_COMMANDS)
        .arg("BLOCK")
        .arg(patience.as_millis().to_string())
        .arg("STREAMS")
        .arg(&keys.control)
        .arg(after);
    command
}

/// Takes an answered command off the stream.
#[must_use]
pub fn acknowledge(keys: &RunKeys, entry: &str) -> Cmd {
    let mut command = redis::cmd("XDEL");
    command.arg(&keys.control).arg(entry);
    command
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEntry {
    /// Its id there.
    pub entry: String,
    /// The command; none if this version cannot read it.
    pub command: Option<Command>,
}

/// A command as an agent gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id.
    pub id: Uuid,
    /// What is wanted.
    pub action: Action,
    /// Which variation shall take it.
    pub variation: u16,
    /// Who wants it.
    pub by: String,
    /// The text of [`Action::Input`].
    pub data: String,
}

/// Reads the reply to [`read`]; time that ran out gives nothing.
///
/// # Errors
/// If it has another shape.
pub fn parse(reply: Value) -> Result<Vec<CommandEntry>, RedisError> {
    type Fields = HashMap<String, String>;
    type Streams = HashMap<String, Vec<(String, Fields)>>;
    let streams: Option<Streams> = redis::from_redis_value(reply)?;
    let entries = streams.into_iter().flatten().flat_map(|(_, all)| all);
    Ok(entries
        .map(|(entry, fields)| CommandEntry {
            entry,
            command: Command::of(&fields),
        })
        .collect())
}

impl Command {
    fn of(fields: &HashMap<String, String>) -> Option<Self> {
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
    fn a_command_that_is_not_understood_hides_no_other() {
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
