//! One read of a run from wherever it is held: "Postgres up to the watermark, Redis from there".
//!
//! The rules at the joint, for a cursor C:
//! 1. Read Redis first. If its first entry after C continues C without a hole, that is the answer.
//! 2. Otherwise read the stored events, from Postgres and the archive. What they hold between C and
//!    the watermark is the answer. They have everything that was ever trimmed from Redis, because
//!    nothing is trimmed before it is stored.
//! 3. If they have nothing after C either, the hole is real. The sink gets a `gap`, and the read
//!    continues behind it. A new epoch after a complete old one is a gap with the reason `reborn`.
//!
//! Redis is read before Postgres, so rule 3 misses no event: one that moves from Redis to Postgres
//! in between is found in Postgres.
//!
//! A publisher may write to the stream and the meta of its run without `append.lua`. What stands
//! behind the run's last id is never read. If the stream ends before that id and Postgres does not
//! hold the rest either, the read has caught up with all there is: the persister stores a gap for
//! the rest, which the next read finds.
//!
//! Bounds: [`ReadLimit`], and [`MAX_READ_BYTES`] from Redis. Time: Redis, Postgres and the archive
//! each have deadlines of their own.

use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::entry::{Entry, Event, UnreadableEntry};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::{ReadFrom, ReadRun, RunInRedis, RunPage};
use tracing::debug;
use uuid::Uuid;

use crate::archive;
use crate::filter::Filter;
use crate::stored::History;
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::runs::Run;
use runcast_store::{Store, StoreError};

/// How much one read returns at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Entries from Redis.
    pub entries: usize,
    /// Rows from Postgres or the archive.
    pub rows: u16,
}

impl ReadLimit {
    /// For following a run: up to 8 MiB if entries have their maximum size.
    pub const FULL_PAGE: Self = Self {
        entries: 32,
        rows: PAGE_EVENTS,
    };

    /// For a viewer that has just come and sees nothing until the read ends: a screen or two,
    /// however old the events are.
    pub const FIRST_PAGE: Self = Self {
        entries: 1,
        rows: 64,
    };
}

/// Bytes of entries that one read takes from Redis, beside one entry more: what
/// [`ReadLimit::FULL_PAGE`] has if entries have their maximum size.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres cannot be read, and only Postgres has the events.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot be read, and the events lie there.
    #[error(transparent)]
    Archive(#[from] archive::reader::ArchiveReadError),
}

/// Receives what a read finds, in order: as frames, or as events.
pub trait Sink {
    /// The id that the sink has reached.
    fn upto(&self) -> EventId;
    /// Adds the next event.
    fn event(&mut self, event: &Event);
    /// Adds a hole that ends at `at`; `next` is the first event after it.
    fn gap(&mut self, at: EventId, next: EventId, count: Option<u64>, reason: &'static str);
    /// Moves on to this id: no store holds another event up to there.
    fn skip_to(&mut self, id: EventId);
}

/// How a read ended, beside what the sink received.
#[derive(Debug)]
pub struct ReadStatus {
    /// The sink has every event of the run that is known.
    pub caught_up: bool,
    /// The run has ended, so `caught_up` is final.
    pub ended: bool,
    /// The error of Redis, if it could not be read. New events then appear once Postgres has stored
    /// them.
    pub without_redis: Option<String>,
    /// Entries that came from Redis.
    pub entries: usize,
    /// The run was removed, and nothing is left of it.
    pub deleted: bool,
    /// The run has come further than what any store holds. Once Postgres holds a gap for the rest,
    /// the next read finds it.
    pub lacks_end: bool,
}

/// Reads runs. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Reader {
    redis: Redis,
    pub(super) store: Store,
    pub(super) history: History,
    keys: Keys,
}

/// What Redis holds of a run after a cursor.
pub(super) struct RedisPage {
    /// The last id of the run; None if Redis does not know the run.
    last: Option<EventId>,
    ended: bool,
    pub(super) items: Vec<Result<Entry, UnreadableEntry>>,
    /// The stream holds nothing further up to `last`.
    is_end: bool,
}

impl Reader {
    /// A reader of this Redis, this Postgres and these stored events.
    pub const fn new(redis: Redis, store: Store, history: History, keys: Keys) -> Self {
        Self {
            redis,
            store,
            history,
            keys,
        }
    }

    /// The last id of a run: from Redis, or from Postgres if Redis does not know the run.
    pub async fn end(&self, run: Uuid) -> Result<EventId, ReadError> {
        if let Ok(page) = self.read_page(run, ReadRun::LAST_ID).await
            && page.state == RunInRedis::Known
        {
            return Ok(page.last);
        }
        let coverage = self.store.coverage(run).await?;
        Ok(coverage.map_or(EventId::ZERO, |coverage| coverage.watermark))
    }

    /// The run itself, if it exists.
    pub async fn run(&self, run: Uuid) -> Result<Option<Run>, StoreError> {
        self.store.run(run).await
    }

    /// Reads on from where the sink stands. `filter` leaves out stored events only; what Redis
    /// holds reaches the sink whole, since leaving events out there would save nothing.
    pub async fn read(
        &self,
        run: Uuid,
        filter: &Filter,
        limit: ReadLimit,
        sink: &mut impl Sink,
    ) -> Result<ReadStatus, ReadError> {
        let cursor = sink.upto();
        // Rule 1: Redis continues the cursor.
        let (page, without_redis) = match self.read_redis(run, cursor, limit.entries).await {
            Ok(page) => (Some(page), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        if let Some(page) = &page {
            push_contiguous(sink, &page.items);
            if sink.upto() > cursor {
                return Ok(redis_status(sink, page, false));
            }
            // Nothing follows the cursor in its own epoch: Postgres need not be read.
            if page.items.is_empty() && page.last.is_some_and(|last| last == cursor) {
                return Ok(redis_status(sink, page, page.ended));
            }
        }
        // Rule 2: stored events after the cursor.
        let stored = self.read_stored(run, filter, limit.rows, sink).await?;
        if stored.watermark > cursor {
            let caught_up = page.is_none() && sink.upto() == stored.watermark;
            return Ok(ReadStatus {
                caught_up,
                ended: caught_up && stored.ended,
                without_redis,
                entries: 0,
                deleted: false,
                lacks_end: false,
            });
        }
        let Some(page) = page else {
            return Ok(ReadStatus {
                caught_up: true,
                ended: stored.ended,
                without_redis,
                entries: 0,
                deleted: stored.deleted,
                lacks_end: false,
            });
        };
        // Rule 3: no store can fill the hole.
        if let Some(item) = page.items.first() {
            debug!(%run, %cursor, "a hole that neither Redis nor Postgres can fill");
            skip_hole(sink, item);
            push_contiguous(sink, &page.items);
        }
        let mut status = redis_status(sink, &page, stored.ended);
        // The stream has lost the rest of the run, which the persister has not stored as a gap yet.
        status.lacks_end = page.items.is_empty() && page.is_end && !status.caught_up;
        status.caught_up |= status.lacks_end;
        status.deleted = stored.deleted && page.last.is_none();
        Ok(status)
    }

    /// What Redis holds of a run after a cursor.
    pub(super) async fn read_redis(
        &self,
        run: Uuid,
        cursor: EventId,
        entries: usize,
    ) -> Result<RedisPage, RedisFailure> {
        let read = ReadRun {
            from: ReadFrom::After(cursor),
            max_entries: entries,
            max_bytes: MAX_READ_BYTES,
            find_foreign: false,
        };
        let page = self.read_page(run, read).await?;
        Ok(RedisPage {
            last: (page.state == RunInRedis::Known).then_some(page.last),
            ended: page.is_sealed,
            items: page.entries,
            is_end: page.is_end,
        })
    }

    async fn read_page(&self, run: Uuid, read: ReadRun) -> Result<RunPage, RedisFailure> {
        let keys = self.keys.run(run);
        self.redis
            .run(keys.slot, async |connection| {
                read.call(&keys, connection).await
            })
            .await
    }

    /// Adds what Postgres and the archive hold after the sink's cursor.
    async fn read_stored(
        &self,
        run: Uuid,
        filter: &Filter,
        rows: u16,
        sink: &mut impl Sink,
    ) -> Result<StoredRead, ReadError> {
        let cursor = sink.upto();
        let Some(coverage) = self.store.coverage(run).await? else {
            // The run was deleted while it was watched: nothing more will come.
            return Ok(StoredRead {
                watermark: cursor,
                ended: true,
                deleted: true,
            });
        };
        let stored = StoredRead {
            watermark: coverage.watermark,
            ended: coverage.ended,
            deleted: false,
        };
        if coverage.watermark <= cursor {
            return Ok(stored);
        }
        let page = EventPage {
            run,
            after: cursor,
            coverage,
            channels: filter.channels(),
            limit: rows,
        };
        let events = self.history.events(&page).await?;
        for event in &events {
            if event.id.epoch != sink.upto().epoch && sink.upto() != EventId::ZERO {
                let before = EventId::new(event.id.epoch, 0);
                sink.gap(before, event.id, None, "reborn");
            }
            sink.event(event);
        }
        // An empty page means that the rest up to the watermark is stored under older ids, or that
        // the filter does not accept it.
        if events.is_empty() {
            sink.skip_to(coverage.watermark);
        }
        Ok(stored)
    }
}

/// What is stored of a run.
struct StoredRead {
    /// If this is not after the cursor, the sink has got nothing.
    watermark: EventId,
    ended: bool,
    /// Postgres does not know the run any more.
    deleted: bool,
}

fn redis_status(sink: &impl Sink, page: &RedisPage, ended: bool) -> ReadStatus {
    let caught_up = page.last.is_none_or(|last| last <= sink.upto());
    ReadStatus {
        caught_up,
        ended: caught_up && ended,
        without_redis: None,
        entries: page.items.len(),
        deleted: false,
        lacks_end: false,
    }
}

/// Adds entries as long as each continues the one before.
fn push_contiguous(sink: &mut impl Sink, items: &[Result<Entry, UnreadableEntry>]) {
    for item in items {
        let upto = sink.upto();
        match item {
            Ok(entry) if entry.last <= upto => {}
            Ok(entry) => {
                let first = entry.first();
                let continues = first.epoch == upto.epoch && first.seq <= upto.seq + 1;
                if !continues {
                    return;
                }
                for event in entry.events().filter(|event| event.id > upto) {
                    sink.event(&event);
                }
            }
            Err(unreadable) if unreadable.id <= upto => {}
            // The number of its events is unknown: everything in between counts as lost with it.
            Err(unreadable) if unreadable.id.epoch == upto.epoch => {
                let next = EventId::new(upto.epoch, unreadable.id.seq + 1);
                sink.gap(
                    unreadable.id,
                    next,
                    Some(unreadable.id.seq - upto.seq),
                    "unreadable",
                );
            }
            Err(_) => return,
        }
    }
}

/// Reports what is missing before an entry, and moves the sink there.
fn skip_hole(sink: &mut impl Sink, item: &Result<Entry, UnreadableEntry>) {
    let upto = sink.upto();
    let first = match item {
        Ok(entry) => entry.first(),
        Err(unreadable) => EventId::new(unreadable.id.epoch, 1),
    };
    let before = EventId::new(first.epoch, first.seq - 1);
    if first.epoch == upto.epoch {
        sink.gap(before, first, Some(first.seq - upto.seq - 1), "lost");
    } else if upto == EventId::ZERO && first.seq == 1 {
        sink.skip_to(before);
    } else if upto == EventId::ZERO {
        sink.gap(before, first, Some(first.seq - 1), "lost");
    } else {
        sink.gap(before, first, None, "reborn");
    }
}
