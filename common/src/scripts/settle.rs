//! Calls of `settle.lua`: a persister settles a run in Redis after a commit.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::evalsha::{call, evalsha, unexpected_reply};
use crate::protocol::event_id::EventId;
use crate::protocol::keys::{PERSISTER_GROUP, RunKeys};
use crate::protocol::limits;

static SETTLE_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("settle.lua")));

/// One call of the settle script, after the transaction that stored events of a run.
#[derive(Debug, Clone)]
pub struct Settle<'a> {
    /// Id of the last event that Postgres holds.
    pub watermark: EventId,
    /// The run's final status, once everything is stored.
    pub sealed: Option<&'a str>,
    /// Entries of the ready queue to acknowledge.
    pub ready_ids: &'a [String],
    /// Highest stored seq of each producer that had events in this transaction.
    pub durable: &'a [(Uuid, u64)],
    /// The stored part that stays in Redis.
    pub window: LiveWindow,
}

/// The live window: the stored part of a run that stays in Redis, for viewers who reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveWindow {
    /// Bound on the events.
    pub events: u64,
    /// Bound on the bytes.
    pub bytes: u64,
    /// Seconds after the last append.
    pub seconds: u64,
}

impl Default for LiveWindow {
    fn default() -> Self {
        Self {
            events: limits::LIVE_WINDOW_EVENTS,
            bytes: limits::LIVE_WINDOW_BYTES,
            seconds: limits::LIVE_WINDOW_AGE.as_secs(),
        }
    }
}

/// The state of a run after the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Everything is stored.
    Clean,
    /// More events wait; the run is at the end of the ready queue.
    More,
    /// Redis does not know the run.
    Gone,
}

impl Settle<'_> {
    /// Calls the script. Safe to repeat: a watermark only moves forward.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<SettleOutcome, RedisError> {
        let mut command = evalsha(
            &SETTLE_SCRIPT,
            keys,
            &[&keys.control, &keys.notices, &keys.wake],
        );
        command
            .arg(self.watermark.epoch)
            .arg(self.watermark.seq)
            .arg(self.sealed.unwrap_or(""))
            .arg(self.window.events)
            .arg(self.window.bytes)
            .arg(self.window.seconds)
            .arg(PERSISTER_GROUP)
            .arg(self.ready_ids.len())
            .arg(self.ready_ids);
        for (producer, seq) in self.durable {
            command.arg(producer.to_string()).arg(seq);
        }
        match call(&SETTLE_SCRIPT, &command, connection).await? {
            Value::BulkString(word) if word == b"clean" => Ok(SettleOutcome::Clean),
            Value::BulkString(word) if word == b"more" => Ok(SettleOutcome::More),
            Value::BulkString(word) if word == b"gone" => Ok(SettleOutcome::Gone),
            _ => Err(unexpected_reply("settle")),
        }
    }
}
