//! The Lua scripts, the only writers of a run stream, with typed calls and replies.
//!
//! A script is called by its SHA-1 (`EVALSHA`) and loaded again where the server does not know it.
//! Each is atomic on the one slot that holds all keys of a run; what it does and promises stands at
//! the head of its `.lua` file.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};
use uuid::Uuid;

use crate::protocol::encoding::Body;
use crate::protocol::event_id::EventId;
use crate::protocol::keys::{PERSISTERS, RunKeys};
use crate::protocol::limits;

static APPEND: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("append.lua")));
static SETTLE: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("settle.lua")));
static REBIRTH: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("rebirth.lua")));
static CAP: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(include_str!("cap.lua")));

/// Sends one `EVALSHA`, and once more after loading the script if the server did not know it. All
/// scripts are idempotent, and a `NOSCRIPT` reply means that nothing was done.
pub(crate) async fn call<C: ConnectionLike>(
    script: &redis::Script,
    command: &Cmd,
    connection: &mut C,
) -> Result<Value, RedisError> {
    match command.query_async(connection).await {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            script.load_async(connection).await?;
            command.query_async(connection).await
        }
        result => result,
    }
}

fn evalsha(script: &redis::Script, keys: &RunKeys, more: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command
        .arg(script.get_hash())
        .arg(4 + more.len())
        .arg(&keys.stream)
        .arg(&keys.meta)
        .arg(&keys.bell)
        .arg(&keys.ready)
        .arg(more)
        .arg(keys.run.to_string());
    command
}

/// What one run may hold in Redis before its producers are told `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Entries in the stream.
    pub entries: u64,
    /// Bytes of their bodies, as they stand in Redis.
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

/// One call of the append script.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    /// Who publishes.
    pub producer: Uuid,
    /// Which process of this producer; a larger one fences all smaller ones.
    pub producer_epoch: u64,
    /// Highest producer seq that is known to be in Postgres.
    pub base: u64,
    /// Highest producer seq that Redis has acknowledged.
    pub acked: u64,
    /// Producer seq of the first event of the body, from 1.
    pub first: u64,
    /// Events in the body; 0 with an empty body only asks for the state.
    pub count: u64,
    /// Event lines, each with its newline.
    pub body: Body<'a>,
    /// What the run may hold.
    pub cap: Cap,
}

/// What the append script answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// What became of the batch.
    pub outcome: Outcome,
    /// Id of the run's last event.
    pub last: EventId,
    /// Highest seq of this producer that Postgres holds.
    pub durable: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In the stream; Redis holds this producer's events up to and with `stored`.
    Stored {
        /// Highest producer seq in Redis.
        stored: u64,
    },
    /// Nothing appended: the batch must start at `expected`.
    Gap {
        /// Producer seq that must come first.
        expected: u64,
    },
    /// Nothing appended: the run holds as much as it may. Wait for the persister.
    Full,
    /// Nothing appended: a newer process of this producer has taken over.
    Fenced {
        /// Its producer epoch.
        by: u64,
    },
}

impl Append<'_> {
    /// The command, for callers that pipeline; an answer `NOSCRIPT` asks for [`load_append`].
    #[must_use]
    pub fn command(&self, keys: &RunKeys) -> Cmd {
        let mut command = evalsha(&APPEND, keys, &[]);
        command
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

    /// Calls the script. Calling it again with the same batch is safe: it is stored once.
    ///
    /// # Errors
    /// The connection's own, or a reply of another shape.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<Appended, RedisError> {
        let reply = call(&APPEND, &self.command(keys), connection).await?;
        Appended::parse(reply)
    }
}

/// Makes the server know the append script; for callers that pipeline [`Append::command`].
///
/// # Errors
/// The connection's own.
pub async fn load_append<C: ConnectionLike>(connection: &mut C) -> Result<(), RedisError> {
    APPEND.load_async(connection).await.map(|_sha| ())
}

pub(crate) fn unexpected(script: &'static str) -> RedisError {
    RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        "a script answered in another shape than this version expects",
        script.to_owned(),
    ))
}

impl Appended {
    /// Reads the script's reply.
    ///
    /// # Errors
    /// If the reply has another shape.
    pub fn parse(reply: Value) -> Result<Self, RedisError> {
        let (word, last, durable, detail): (String, String, u64, u64) =
            redis::from_redis_value(reply)?;
        let outcome = match word.as_str() {
            "ok" => Outcome::Stored { stored: detail },
            "gap" => Outcome::Gap { expected: detail },
            "full" => Outcome::Full,
            "fenced" => Outcome::Fenced { by: detail },
            _ => return Err(unexpected("append")),
        };
        let last = last.parse().map_err(|_malformed| unexpected("append"))?;
        Ok(Self {
            outcome,
            last,
            durable,
        })
    }
}

/// One call of the settle script, after the transaction that stored events of a run.
#[derive(Debug, Clone)]
pub struct Settle<'a> {
    /// Last event id that Postgres holds.
    pub watermark: EventId,
    /// The run's final status, once everything is stored.
    pub sealed: Option<&'a str>,
    /// Ready entries that are done with.
    pub ready_ids: &'a [String],
    /// Highest stored seq of each producer that had events in this turn.
    pub durable: &'a [(Uuid, u64)],
    /// What stays in Redis for viewers.
    pub window: Window,
}

/// What of the stored part stays in Redis, for viewers who reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Events at most.
    pub events: u64,
    /// Bytes at most.
    pub bytes: u64,
    /// Seconds after the last append.
    pub seconds: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            events: limits::LIVE_WINDOW_EVENTS,
            bytes: limits::LIVE_WINDOW_BYTES,
            seconds: limits::LIVE_WINDOW_AGE.as_secs(),
        }
    }
}

/// How a run stands after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Everything is stored.
    Clean,
    /// There is more; the run stands at the back of the line.
    More,
    /// Redis does not know the run.
    Gone,
}

impl Settle<'_> {
    /// Calls the script. Calling it again is safe: a watermark only moves forward.
    ///
    /// # Errors
    /// The connection's own, or a reply of another shape.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<Settled, RedisError> {
        let mut command = evalsha(&SETTLE, keys, &[&keys.control]);
        command
            .arg(self.watermark.epoch)
            .arg(self.watermark.seq)
            .arg(self.sealed.unwrap_or(""))
            .arg(self.window.events)
            .arg(self.window.bytes)
            .arg(self.window.seconds)
            .arg(PERSISTERS)
            .arg(self.ready_ids.len())
            .arg(self.ready_ids);
        for (producer, seq) in self.durable {
            command.arg(producer.to_string()).arg(seq);
        }
        match call(&SETTLE, &command, connection).await? {
            Value::BulkString(word) if word == b"clean" => Ok(Settled::Clean),
            Value::BulkString(word) if word == b"more" => Ok(Settled::More),
            Value::BulkString(word) if word == b"gone" => Ok(Settled::Gone),
            _ => Err(unexpected("settle")),
        }
    }
}

/// Gives what Redis holds of a run new ids above `watermark`, because Redis went back in time.
///
/// # Errors
/// The connection's own, or a reply of another shape.
pub async fn rebirth<C: ConnectionLike>(
    keys: &RunKeys,
    watermark: EventId,
    durable: &[(Uuid, u64)],
    connection: &mut C,
) -> Result<EventId, RedisError> {
    let mut command = evalsha(&REBIRTH, keys, &[]);
    command.arg(watermark.epoch).arg(watermark.seq);
    for (producer, seq) in durable {
        command.arg(producer.to_string()).arg(seq);
    }
    match call(&REBIRTH, &command, connection).await? {
        Value::BulkString(id) => {
            EventId::parse_bytes(&id).map_err(|_malformed| unexpected("rebirth"))
        }
        _ => Err(unexpected("rebirth")),
    }
}

/// Lowers what a run may hold in Redis to so many body bytes, for a while. False if Redis does not know the
/// run.
///
/// # Errors
/// The connection's own, or a reply of another shape.
pub async fn cap<C: ConnectionLike>(
    keys: &RunKeys,
    bytes: u64,
    life: Duration,
    connection: &mut C,
) -> Result<bool, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(CAP.get_hash()).arg(1).arg(&keys.meta);
    command.arg(bytes).arg(life.as_millis().to_string());
    match call(&CAP, &command, connection).await? {
        Value::Int(known) => Ok(known == 1),
        _ => Err(unexpected("cap")),
    }
}
