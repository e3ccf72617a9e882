//! Reads one run: what its stream holds beyond the watermark.
//!
//! The read begins at the entry that the watermark names, to see that it is still the one that was
//! stored. If it is not, Redis went back in time (a failover to a replica that lagged), and its ids
//! now stand for other events than those in Postgres: the run has diverged.
//!
//! A publisher may write to the stream and the meta of its run without `append.lua`. So a read also
//! finds what the run has lost (the stream ends before the run's last id), and an entry behind that
//! id, which no reader is shown. A meta without a last id counts as diverged.
//!
//! Bounds: about `share_bytes` of bodies per run, in reads of at most [`MAX_READ_ENTRIES`] entries;
//! `read.lua` bounds each reply.

use std::collections::HashSet;

use runcast_common::connect::Redis;
use runcast_common::protocol::entry::{Entry, UnreadableEntry};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_common::scripts::{ReadFrom, ReadRun, RunInRedis, RunPage};
use uuid::Uuid;

use crate::error::PersistError;
use runcast_store::run_states::RunState;

/// Entries of one read.
const MAX_READ_ENTRIES: usize = MAX_ENTRY_EVENTS;

/// An entry of a run stream, readable or not.
pub(crate) type ReadEntry = Result<Entry, UnreadableEntry>;

/// What a run holds beyond its watermark.
#[derive(Debug)]
pub(crate) struct PendingEntries {
    pub(crate) run: Uuid,
    /// The watermark that the read began at.
    pub(crate) from: EventId,
    /// In the order of their ids.
    pub(crate) entries: Vec<ReadEntry>,
    /// The run's last id, if the stream ends before it: what lies between is lost.
    pub(crate) lost_upto: Option<EventId>,
    /// An entry behind the run's last id.
    pub(crate) foreign: Option<UnreadableEntry>,
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

    /// The producers of its readable entries, each once, with the run.
    pub(crate) fn producers(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        let producers = self.entries.iter().flatten().map(|entry| entry.producer);
        let producers: HashSet<Uuid> = producers.collect();
        producers.into_iter().map(|producer| (self.run, producer))
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
    let mut page = read(redis, keys, ReadFrom::At(from), share_bytes).await?;
    match page.state {
        RunInRedis::Known => {}
        RunInRedis::Unknown => return Ok(ReadOutcome::UpToDate),
        RunInRedis::Damaged => return Ok(ReadOutcome::Diverged { watermark: from }),
    }
    let mut entries = std::mem::take(&mut page.entries);
    let at_watermark = match entries.first() {
        Some(entry) if id(entry) == from => Some(entries.remove(0)),
        _ => None,
    };
    // Compare the entry at the watermark with the event that was stored last.
    let continues = match at_watermark {
        // An earlier version could not read this entry and stored it without a producer, even if
        // this version can read it. A gap has no producer and may have no entry.
        _ if state.watermark_event.is_some_and(|(id, _)| id.is_nil()) => true,
        Some(Ok(entry)) => state.watermark_event == Some((entry.producer, entry.producer_last())),
        Some(Err(_unreadable)) => false,
        None if from == EventId::ZERO => true,
        // If the entry was trimmed because it is stored, then Redis has a watermark as high as
        // ours.
        None => {
            page.watermark.is_some_and(|in_redis| in_redis >= from)
                || !holds_before(redis, keys, from).await?
        }
    };
    if page.last < from || !continues {
        return Ok(ReadOutcome::Diverged { watermark: from });
    }
    // Read further, until the share is used up.
    let mut bytes: usize = entries.iter().map(body_bytes).sum();
    while !page.is_end && bytes < share_bytes {
        let reached = entries.last().map_or(from, id);
        let rest = share_bytes - bytes;
        page = read(redis, keys, ReadFrom::After(reached), rest).await?;
        bytes += page.entries.iter().map(body_bytes).sum::<usize>();
        if page.state != RunInRedis::Known || (page.entries.is_empty() && !page.is_end) {
            break;
        }
        entries.append(&mut page.entries);
    }
    let reached = entries.last().map_or(from, id);
    let is_end = page.is_end && page.state == RunInRedis::Known;
    // An epoch that has just begun has no events yet.
    let has_lost = is_end && page.last > reached && page.last.seq > 0;
    let pending = PendingEntries {
        run: keys.run,
        from,
        entries,
        lost_upto: has_lost.then_some(page.last),
        foreign: page.foreign.filter(|_| is_end),
    };
    let is_empty = pending.entries.is_empty() && !has_lost && pending.foreign.is_none();
    Ok(match is_empty {
        true => ReadOutcome::UpToDate,
        false => ReadOutcome::Pending(pending),
    })
}

/// Reads entries of about `max_bytes`.
async fn read(
    redis: &Redis,
    keys: &RunKeys,
    from: ReadFrom,
    max_bytes: usize,
) -> Result<RunPage, PersistError> {
    let read = ReadRun {
        from,
        max_entries: MAX_READ_ENTRIES,
        max_bytes,
        find_foreign: true,
    };
    let page = redis.run(keys.slot, async |connection| {
        read.call(keys, connection).await
    });
    Ok(page.await?)
}

/// Whether the stream holds entries from before the watermark, although not the one at it.
async fn holds_before(redis: &Redis, keys: &RunKeys, from: EventId) -> Result<bool, PersistError> {
    let read = ReadRun {
        from: ReadFrom::At(EventId::ZERO),
        max_entries: 1,
        max_bytes: 1,
        find_foreign: false,
    };
    let page = redis.run(keys.slot, async |connection| {
        read.call(keys, connection).await
    });
    let page = page.await?;
    Ok(page.entries.first().is_some_and(|entry| id(entry) < from))
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
