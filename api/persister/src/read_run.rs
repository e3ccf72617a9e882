//! One run's turn: what its stream holds beyond the watermark.
//!
//! The read begins at the entry that the watermark names, to see that it is still the one that was
//! stored. If it is not, Redis went back in time (a failover to a replica that lagged) and its ids
//! mean other events than those in Postgres.

use redis::Value;
use runcast_common::connect::Redis;
use runcast_common::protocol::entry::{Entry, Unreadable};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_common::redis;
use uuid::Uuid;

use crate::error::PersistError;
use runcast_store::ingest::RunState;

/// Entries of the first read: usually all there are, and little memory if they are large.
const FIRST_READ: usize = 4;

/// Entries of one further read at most.
const MOST_READ: usize = MAX_ENTRY_EVENTS;

/// What a run holds beyond its watermark.
#[derive(Debug)]
pub struct PendingEntries {
    /// The run.
    pub run: Uuid,
    /// The watermark it was read from.
    pub from: EventId,
    /// Its entries, readable or not, in order; never empty.
    pub items: Vec<Result<Entry, Unreadable>>,
}

impl PendingEntries {
    /// Bytes of its entries' bodies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.items.iter().map(size).sum()
    }

    /// How many events it holds; an unreadable entry counts as one.
    #[must_use]
    pub fn events(&self) -> u64 {
        let count = |item: &Result<Entry, Unreadable>| item.as_ref().map_or(1, |entry| entry.count);
        self.items.iter().map(count).sum()
    }

    /// When its first readable entry was appended, Unix milliseconds of Redis.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let mut readable = self.items.iter().flatten();
        readable.next().map(|entry| entry.appended_ms)
    }
}

/// What a read found.
#[derive(Debug)]
pub enum ReadOutcome {
    /// Entries to store.
    Events(Vec<Result<Entry, Unreadable>>),
    /// Everything is stored.
    Nothing,
    /// The stream does not continue what is stored.
    WentBack,
}

/// Reads a run's stream from its watermark, until about `share` body bytes have come.
///
/// # Errors
/// [`PersistError`] if Redis cannot be reached or answers in another shape.
pub async fn read(
    redis: &Redis,
    keys: &RunKeys,
    state: &RunState,
    share: usize,
) -> Result<ReadOutcome, PersistError> {
    let from = state.watermark;
    let (meta, reply): (Vec<Option<String>>, Value) = redis
        .run(keys.slot, async |connection| {
            let mut pipeline = redis::pipe();
            pipeline
                .cmd("HMGET")
                .arg(&[keys.meta.as_str(), "epoch", "seq", "watermark"]);
            pipeline
                .cmd("XRANGE")
                .arg(&keys.stream)
                .arg(from.to_string())
                .arg("+")
                .arg("COUNT")
                .arg(FIRST_READ);
            pipeline.query_async(connection).await
        })
        .await?;
    let mut items = Entry::parse_range(reply)?;
    let at_watermark = match items.first() {
        Some(item) if id(item) == from => Some(items.remove(0)),
        _ => None,
    };
    let last = match &meta[..] {
        [Some(epoch), Some(seq), _] => format!("{epoch}-{seq}").parse().unwrap_or(EventId::ZERO),
        _ => EventId::ZERO,
    };
    if last == EventId::ZERO && items.is_empty() {
        return Ok(ReadOutcome::Nothing);
    }
    let continues = match at_watermark {
        // What an earlier version could not read is stored as nobody's, even if this one can.
        Some(_) if state.watermark_event.is_some_and(|(who, _)| who.is_nil()) => true,
        Some(Ok(entry)) => state.watermark_event == Some((entry.producer, entry.producer_last())),
        Some(Err(_unreadable)) => false,
        // Trimmed because it is stored: then Redis was told so.
        None if from == EventId::ZERO => true,
        None => {
            let told = meta[2].as_deref().and_then(|text| text.parse().ok());
            told.is_some_and(|told: EventId| told >= from)
                || !holds_before(redis, keys, from).await?
        }
    };
    if last < from || !continues {
        return Ok(ReadOutcome::WentBack);
    }
    read_on(redis, keys, last, share, &mut items).await?;
    Ok(if items.is_empty() {
        ReadOutcome::Nothing
    } else {
        ReadOutcome::Events(items)
    })
}

/// True if the stream holds entries from before the watermark, although not the one at it.
async fn holds_before(redis: &Redis, keys: &RunKeys, from: EventId) -> Result<bool, PersistError> {
    let mut command = redis::cmd("XRANGE");
    command
        .arg(&keys.stream)
        .arg("-")
        .arg(format!("({from}"))
        .arg("COUNT")
        .arg(1);
    let reply = redis.query(keys.slot, &command).await?;
    Ok(!Entry::parse_range(reply)?.is_empty())
}

/// Reads further, in steps that fit the size of what came so far, up to the run's share of bytes.
async fn read_on(
    redis: &Redis,
    keys: &RunKeys,
    last: EventId,
    share: usize,
    items: &mut Vec<Result<Entry, Unreadable>>,
) -> Result<(), PersistError> {
    loop {
        let Some(reached) = items.last().map(id).filter(|reached| *reached < last) else {
            return Ok(());
        };
        let bytes: usize = items.iter().map(size).sum();
        let mean = bytes / items.len() + 1;
        let room = share.saturating_sub(bytes) / mean;
        if room == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("XRANGE");
        command
            .arg(&keys.stream)
            .arg(format!("({reached}"))
            .arg("+")
            .arg("COUNT")
            .arg(room.min(MOST_READ));
        let more = Entry::parse_range(redis.query(keys.slot, &command).await?)?;
        if more.is_empty() {
            return Ok(());
        }
        items.extend(more);
    }
}

/// The id that an item has in the stream.
pub(super) const fn id(item: &Result<Entry, Unreadable>) -> EventId {
    match item {
        Ok(entry) => entry.last,
        Err(unreadable) => unreadable.id,
    }
}

fn size(item: &Result<Entry, Unreadable>) -> usize {
    match item {
        Ok(entry) => entry.body.len(),
        Err(unreadable) => unreadable.bytes.len(),
    }
}
