//! Calls of `append.lua`: a producer appends one batch of events to its run.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};
use uuid::Uuid;

use super::evalsha::{call, unexpected_reply};
use crate::protocol::encoding::Body;
use crate::protocol::event_id::EventId;
use crate::protocol::keys::RunKeys;
use crate::protocol::limits;

static APPEND_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(append_source()));

/// What one run may hold in Redis before producers get `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Entries in the stream.
    pub entries: u64,
    /// Bytes of their bodies, as stored in Redis.
    pub bytes: u64,
}

impl Default for Cap {
    fn default() -> Self {
        Self {
            entries: limits::MAX_RUN_ENTRIES,
            bytes: limits::MAX_RUN_BYTES,
        }
    }
}

/// Whose rights a call of the append script has, and so who puts the run into the ready queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAs {
    /// A service: the script does.
    Service,
    /// A publisher with a Redis user of its own, who may touch the keys of its run alone: a
    /// persister does, to which Redis reports the change of the wake key.
    RunUser,
}

/// One call of the append script.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    /// The producer.
    pub producer: Uuid,
    /// Epoch of the producer's process; a larger one fences all smaller ones.
    pub producer_epoch: u64,
    /// Highest producer seq known to be in Postgres.
    pub base: u64,
    /// Highest producer seq that Redis has acknowledged.
    pub acked: u64,
    /// Producer seq of the first event of the body, from 1.
    pub first: u64,
    /// Events in the body; 0 with an empty body only queries the state.
    pub count: u64,
    /// Event lines, each with its newline.
    pub body: Body<'a>,
    /// What the run may hold.
    pub cap: Cap,
}

/// The reply of the append script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendReply {
    /// What happened to the batch.
    pub outcome: AppendOutcome,
    /// Id of the run's last event.
    pub last: EventId,
    /// Highest seq of this producer that Postgres holds.
    pub durable: u64,
}

/// What happened to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Appended, by this call or an earlier one.
    Stored {
        /// Highest seq of this producer that Redis holds.
        stored: u64,
    },
    /// Not appended: the batch must start at `expected`.
    Gap {
        /// Producer seq that must come first.
        expected: u64,
    },
    /// Not appended: the run has reached its cap. Wait for the persister.
    Full,
    /// Not appended: a newer process of this producer has taken over.
    Fenced {
        /// Its producer epoch.
        by: u64,
    },
    /// Not appended: the run was deleted.
    Gone,
}

impl Append<'static> {
    /// A call that changes nothing: it shows whether the caller may call the script.
    #[must_use]
    pub fn probe() -> Self {
        Self {
            producer: Uuid::nil(),
            producer_epoch: 0,
            base: 0,
            acked: 0,
            first: 1,
            count: 0,
            body: Body::Plain(b""),
            cap: Cap::default(),
        }
    }
}

impl Append<'_> {
    /// The command, for callers that pipeline. After the reply `NOSCRIPT`, call [`load_append`] and
    /// send it again.
    #[must_use]
    pub fn command(&self, keys: &RunKeys, caller: AppendAs) -> Cmd {
        let of_run = [&keys.stream, &keys.meta, &keys.wakeups, &keys.wake];
        let ready = Some(&keys.ready).filter(|_| caller == AppendAs::Service);
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(APPEND_SCRIPT.get_hash())
            .arg(of_run.len() + usize::from(ready.is_some()))
            .arg(&of_run)
            .arg(ready)
            .arg(keys.run.to_string())
            .arg(self.producer.to_string())
            .arg(self.producer_epoch)
            .arg(self.base)
            .arg(self.acked)
            .arg(self.first)
            .arg(self.count)
            .arg(self.cap.entries)
            .arg(self.cap.bytes)
            .arg(self.body.field())
            .arg(self.body.bytes());
        command
    }

    /// Calls the script. Safe to repeat: the batch is appended once.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        caller: AppendAs,
        connection: &mut C,
    ) -> Result<AppendReply, RedisError> {
        let reply = call(&APPEND_SCRIPT, &self.command(keys, caller), connection).await?;
        AppendReply::parse(reply)
    }
}

/// Reads the highest seq of a producer that Postgres holds; nothing while that is none.
#[must_use]
pub fn read_durable(keys: &RunKeys, producer: Uuid) -> Cmd {
    let mut command = redis::cmd("HGET");
    command.arg(&keys.meta).arg(format!("d:{producer}"));
    command
}

/// Asks whether Redis knows the run: 1 or 0.
#[must_use]
pub fn is_known(keys: &RunKeys) -> Cmd {
    let mut command = redis::cmd("EXISTS");
    command.arg(&keys.meta);
    command
}

/// The append script, for `SCRIPT LOAD` beside other commands.
#[must_use]
pub const fn append_source() -> &'static str {
    include_str!("append.lua")
}

/// Loads the append script into the server, for callers that pipeline [`Append::command`].
pub async fn load_append<C: ConnectionLike>(connection: &mut C) -> Result<(), RedisError> {
    APPEND_SCRIPT.load_async(connection).await.map(|_sha| ())
}

impl AppendReply {
    /// Parses the reply of [`Append::command`].
    pub fn parse(reply: Value) -> Result<Self, RedisError> {
        let (word, last, durable, detail): (String, String, u64, u64) =
            redis::from_redis_value(reply)?;
        let outcome = match word.as_str() {
            "ok" => AppendOutcome::Stored { stored: detail },
            "gap" => AppendOutcome::Gap { expected: detail },
            "full" => AppendOutcome::Full,
            "fenced" => AppendOutcome::Fenced { by: detail },
            "gone" => AppendOutcome::Gone,
            _ => return Err(unexpected_reply("append")),
        };
        let last = last
            .parse()
            .map_err(|_malformed| unexpected_reply("append"))?;
        Ok(Self {
            outcome,
            last,
            durable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_limits_of_a_run() {
        let limits = format!(
            "local MAX_ENTRIES, MAX_BYTES = {}, {}\n",
            limits::MAX_RUN_ENTRIES,
            limits::MAX_RUN_BYTES
        );
        assert!(append_source().contains(&limits), "{limits}");
    }
}
