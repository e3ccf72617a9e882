//! Reads one run: what its stream holds beyond the watermark.
//!
//! The read begins at the entry that the watermark names, to see that it is still the one that was
//! stored. If it is not, Redis went back in time (a failover to a replica that lagged), and its ids
//! now stand for other events than those in Postgres: the run has diverged.
//!
//! Bounds: about `share_bytes` of bodies per run, in reads of at most [`MAX_READ_ENTRIES`].

use redis::Value;
use runcast_common::connect::Redis;
use runcast_common::protocol::entry::{Entry, UnreadableEntry};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_common::redis;
use uuid::Uuid;

use crate::error::PersistError;
use runcast_store::ingest::RunState;

/// Entries of the first read: usually all there are, and little memory if they are large.
const FIRST_READ_ENTRIES: usize = 4;

/// Entries of each further read.
const MAX_READ_ENTRIES: usize = MAX_ENTRY_EVENTS;

/// An entry of a run stream, readable or not.
pub(crate) type ReadEntry = Result<Entry, UnreadableEntry>;

/// What a run holds beyond its watermark.
#[derive(Debug)]
pub(crate) struct PendingEntries {
    pub(crate) run: Uuid,
    /// The watermark that the read began at.
    pub(crate) from: EventId,
    /// In the order of their ids; never empty.
    pub(crate) entries: Vec<ReadEntry>,
}

impl PendingEntries {
    /// Bytes of all bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(body_bytes).sum()
    }

    /// How many events it holds; an unreadable entry counts as one.
    pub(crate) fn events(&self) -> u64 {
        let count = |entry: &ReadEntry| entry.as_ref().map_or(1, |entry| entry.count);
        self.entries.iter().map(count).sum()
    }

    /// When its first readable entry was appended, in Unix milliseconds of Redis.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let mut readable = self.entries.iter().flatten();
        readable.next().map(|entry| entry.appended_ms)
    }
}

/// How a run's stream compares with what is stored.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    /// It holds entries that are not stored.
    Pending(PendingEntries),
    /// Everything is stored.
    UpToDate,
    /// It does not continue what is stored.
    Diverged {
        /// The watermark that it was compared with.
        watermark: EventId,
    },
}

/// Reads a run's stream from its watermark on, until about `share_bytes` of bodies have been read.
pub(crate) async fn read_run(
    redis: &Redis,
    keys: &RunKeys,
    state: &RunState,
    share_bytes: usize,
) -> Result<ReadOutcome, PersistError> {
    let from = state.watermark;
    let (meta, reply) = read_first(redis, keys, from).await?;
    let mut entries = Entry::parse_range(reply)?;
    let at_watermark = match entries.first() {
        Some(entry) if id(entry) == from => Some(entries.remove(0)),
        _ => None,
    };
    let last = match &meta[..] {
        [Some(epoch), Some(seq), _] => format!("{epoch}-{seq}").parse().unwrap_or(EventId::ZERO),
        _ => EventId::ZERO,
    };
    if last == EventId::ZERO && entries.is_empty() {
        return Ok(ReadOutcome::UpToDate);
    }
    // Compare the entry at the watermark with the event that was stored last.
    let continues = match at_watermark {
        // An earlier version could not read this entry and stored it without a producer, even if
        // this version can read it.
        Some(_) if state.watermark_event.is_some_and(|(id, _)| id.is_nil()) => true,
        Some(Ok(entry)) => state.watermark_event == Some((entry.producer, entry.producer_last())),
        Some(Err(_unreadable)) => false,
        None if from == EventId::ZERO => true,
        // If the entry was trimmed because it is stored, then Redis has a watermark as high as
        // ours.
        None => {
            let in_redis: Option<EventId> = meta[2].as_deref().and_then(|text| text.parse().ok());
            in_redis.is_some_and(|in_redis| in_redis >= from)
                || !holds_before(redis, keys, from).await?
        }
    };
    if last < from || !continues {
        return Ok(ReadOutcome::Diverged { watermark: from });
    }
    read_further(redis, keys, last, share_bytes, &mut entries).await?;
    if entries.is_empty() {
        return Ok(ReadOutcome::UpToDate);
    }
    Ok(ReadOutcome::Pending(PendingEntries {
        run: keys.run,
        from,
        entries,
    }))
}

/// Epoch, seq and watermark of the run's meta hash, and the first entries from the watermark on.
async fn read_first(
    redis: &Redis,
    keys: &RunKeys,
    from: EventId,
) -> Result<(Vec<Option<String>>, Value), PersistError> {
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
        .arg(FIRST_READ_ENTRIES);
    let replies = redis.run(keys.slot, async |connection| {
        pipeline.query_async(connection).await
    });
    Ok(replies.await?)
}

/// Whether the stream holds entries from before the watermark, although not the one at it.
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

/// Reads further, as many entries at a time as are likely to fit into the rest of the share,
/// judging by the mean size so far.
async fn read_further(
    redis: &Redis,
    keys: &RunKeys,
    last: EventId,
    share_bytes: usize,
    entries: &mut Vec<ReadEntry>,
) -> Result<(), PersistError> {
    loop {
        let Some(reached) = entries.last().map(id).filter(|reached| *reached < last) else {
            return Ok(());
        };
        let bytes: usize = entries.iter().map(body_bytes).sum();
        let mean = bytes / entries.len() + 1;
        let room = share_bytes.saturating_sub(bytes) / mean;
        if room == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("XRANGE");
        command
            .arg(&keys.stream)
            .arg(format!("({reached}"))
            .arg("+")
            .arg("COUNT")
            .arg(room.min(MAX_READ_ENTRIES));
        let more = Entry::parse_range(redis.query(keys.slot, &command).await?)?;
        if more.is_empty() {
            return Ok(());
        }
        entries.extend(more);
    }
}

/// The id that an entry has in the stream.
pub(crate) const fn id(entry: &ReadEntry) -> EventId {
    match entry {
        Ok(entry) => entry.last,
        Err(unreadable) => unreadable.id,
    }
}

fn body_bytes(entry: &ReadEntry) -> usize {
    match entry {
        Ok(entry) => entry.body.len(),
        Err(unreadable) => unreadable.bytes.len(),
    }
}
