//! Calls of `read.lua`: what Redis holds of a run.
//!
//! Bounds: a reply has at most the bytes that the caller asks for, and one entry of at most
//! [`MAX_STREAM_ENTRY_BYTES`] more. Its bodies are decompressed up to the same bytes.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};

use super::evalsha::{call, unexpected_reply};
use crate::protocol::entry::{Entry, NotEntries, UnreadableEntry};
use crate::protocol::event_id::EventId;
use crate::protocol::keys::RunKeys;
use crate::protocol::limits::{MAX_SHOWN_ENTRY_BYTES, MAX_STREAM_ENTRY_BYTES};

static READ_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("read.lua")));

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the entry with this id, if there is one, else behind it.
    At(EventId),
    /// Behind this id.
    After(EventId),
}

/// One call of the read script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRun {
    /// Where it begins.
    pub from: ReadFrom,
    /// Bound on the entries.
    pub max_entries: usize,
    /// Bound on their bytes: the entry that reaches it is the last.
    pub max_bytes: usize,
    /// Also look for an entry behind the run's last id.
    pub find_foreign: bool,
}

/// Whether Redis knows a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunInRedis {
    /// It does.
    Known,
    /// It does not.
    Unknown,
    /// Its meta does not say how far the run has come, which no script of ours can cause.
    Damaged,
}

/// What Redis holds of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPage {
    /// Whether Redis knows the run.
    pub state: RunInRedis,
    /// Id of the run's last event; zero unless the run is [`RunInRedis::Known`].
    pub last: EventId,
    /// The watermark that Redis has.
    pub watermark: Option<EventId>,
    /// Everything is stored, and the run is over.
    pub is_sealed: bool,
    /// Its entries up to the last id, readable or not, in order.
    pub entries: Vec<Result<Entry, UnreadableEntry>>,
    /// The stream holds no further entry up to the last id.
    pub is_end: bool,
    /// An entry behind the last id, which the append script has not written.
    pub foreign: Option<UnreadableEntry>,
}

impl ReadRun {
    /// A read of the run's last id alone.
    pub const LAST_ID: Self = Self {
        from: ReadFrom::After(EventId::ZERO),
        max_entries: 0,
        max_bytes: 0,
        find_foreign: false,
    };

    /// Calls the script.
    ///
    /// # Errors
    /// The code of the error is `WRONGTYPE` if a key of the run has another type.
    pub async fn call<C: ConnectionLike>(
        &self,
        keys: &RunKeys,
        connection: &mut C,
    ) -> Result<RunPage, RedisError> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(READ_SCRIPT.get_hash()).arg(2);
        command.arg(&keys.stream).arg(&keys.meta);
        command
            .arg(match self.from {
                ReadFrom::At(id) => id.to_string(),
                ReadFrom::After(id) => format!("({id}"),
            })
            .arg(self.max_entries)
            .arg(self.max_bytes)
            .arg(MAX_STREAM_ENTRY_BYTES)
            .arg(MAX_SHOWN_ENTRY_BYTES)
            .arg(if self.find_foreign { "foreign" } else { "" });
        let reply = call(&READ_SCRIPT, &command, connection).await?;
        self.parse(reply).ok_or_else(|| unexpected_reply("read"))
    }

    fn parse(&self, reply: Value) -> Option<RunPage> {
        let Value::Array(parts) = reply else {
            return None;
        };
        let mut parts = parts.into_iter();
        let state = match text(parts.next()?)?.as_str() {
            "ok" => RunInRedis::Known,
            "none" => RunInRedis::Unknown,
            "damaged" => RunInRedis::Damaged,
            _ => return None,
        };
        let last: EventId = text(parts.next()?)?.parse().ok()?;
        let watermark = text(parts.next()?)?.parse().ok();
        let is_sealed = !text(parts.next()?)?.is_empty();
        let Value::Array(items) = parts.next()? else {
            return None;
        };
        let is_end = parts.next()? == Value::Int(1);
        let parsed = Entry::parse_page(items, self.max_bytes);
        let (entries, is_whole) = parsed.map_err(|NotEntries| ()).ok()?;
        let foreign = match parts.next() {
            Some(item) => Some(Entry::parse_foreign(item, last).ok()?),
            None => None,
        };
        Some(RunPage {
            state,
            last,
            watermark,
            is_sealed,
            entries,
            is_end: is_end && is_whole,
            foreign,
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}
