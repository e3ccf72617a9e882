//! One read of a run from wherever it is held: "Postgres up to the watermark, Redis from there".
//!
//! The rules at the joint, for a cursor C:
//! 1. Redis is asked first. If its first entry behind C continues C without a hole, it is the answer.
//! 2. Otherwise history is asked, Postgres and the archive: what it holds between C and the watermark is the
//!    answer. It has everything that was ever trimmed from Redis, because nothing is trimmed before it is stored.
//! 3. If Postgres has nothing behind C either, the hole is real: it is told as a `gap`, and the read
//!    goes on behind it. A new epoch behind a complete old one is told as `reborn`.
//!
//! In rule 3 Redis was asked before Postgres, so an event that moved from one to the other in between
//! is found in Postgres.

use redis::Value;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::entry::{Entry, Event, NotEntries, Unreadable};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_common::redis;
use tracing::debug;
use uuid::Uuid;

use crate::archive;
use crate::filter::Filter;
use crate::stored::History;
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::runs::Run;
use runcast_store::{Store, StoreError};

/// How much one read brings at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Entries from Redis.
    pub entries: usize,
    /// Rows from Postgres or the archive.
    pub rows: u16,
}

impl ReadLimit {
    /// For who follows a run: up to 8 MiB if entries are as large as they may be.
    pub const WIDE: Self = Self {
        entries: 32,
        rows: PAGE_EVENTS,
    };

    /// For who has just come and sees nothing until the read is done: a screen or two, at whatever depth.
    pub const FIRST: Self = Self {
        entries: 1,
        rows: 64,
    };
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres, which alone has what is asked for.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive, where what is asked for lies.
    #[error(transparent)]
    Archive(#[from] archive::reader::ReadError),
    /// Redis answered in another shape.
    #[error(transparent)]
    NotEntries(#[from] NotEntries),
}

/// Takes what a read finds, in order: as frames, or as events.
pub trait Sink {
    /// The id that it has reached.
    fn upto(&self) -> EventId;
    /// The event that comes next.
    fn event(&mut self, event: &Event);
    /// A hole that ends at `at`.
    fn gap(&mut self, at: EventId, next: EventId, count: Option<u64>, reason: &'static str);
    /// Nothing more is held up to this id.
    fn skip_to(&mut self, id: EventId);
}

/// How a read ended, beside what its sink took.
#[derive(Debug)]
pub struct ReadStatus {
    /// The sink has everything that is known of the run.
    pub caught_up: bool,
    /// The run is over, and `caught_up` is final.
    pub ended: bool,
    /// Why Redis could not be read, if so: new events then appear once Postgres has stored them.
    pub without_redis: Option<String>,
    /// Entries that came from Redis.
    pub entries: usize,
}

/// Reads runs. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Reader {
    redis: Redis,
    pub(super) store: Store,
    pub(super) history: History,
    keys: Keys,
}

/// What Redis knows of a run.
pub(super) struct RedisPage {
    last: Option<EventId>,
    ended: bool,
    pub(super) items: Vec<Result<Entry, Unreadable>>,
}

impl Reader {
    /// A reader of this Redis, this Postgres, and the history that is stored.
    #[must_use]
    pub const fn new(redis: Redis, store: Store, history: History, keys: Keys) -> Self {
        Self {
            redis,
            store,
            history,
            keys,
        }
    }

    /// Where a run ends now: in Redis, or, where Redis does not know it, in Postgres.
    ///
    /// # Errors
    /// [`ReadError`] if neither can tell.
    pub async fn end(&self, run: Uuid) -> Result<EventId, ReadError> {
        let keys = self.keys.run(run);
        let mut command = redis::cmd("HMGET");
        command.arg(&[keys.meta.as_str(), "epoch", "seq"]);
        let meta: Result<Vec<Option<String>>, RedisFailure> =
            self.redis.query(keys.slot, &command).await;
        if let Ok(Some(last)) = meta.as_deref().map(last_id) {
            return Ok(last);
        }
        let coverage = self.store.coverage(run).await?;
        Ok(coverage.map_or(EventId::ZERO, |coverage| coverage.watermark))
    }

    /// The run itself, if there is such a one.
    ///
    /// # Errors
    /// [`StoreError`] if Postgres cannot be asked.
    pub async fn run(&self, run: Uuid) -> Result<Option<Run>, StoreError> {
        self.store.run(run).await
    }

    /// Reads on from where the sink stands. What `filter` does not want need not reach the sink, and
    /// does where that costs nothing.
    ///
    /// # Errors
    /// [`ReadError`] if the answer needs Postgres or the archive and it cannot be asked.
    pub async fn read(
        &self,
        run: Uuid,
        filter: &Filter,
        step: ReadLimit,
        sink: &mut impl Sink,
    ) -> Result<ReadStatus, ReadError> {
        let cursor = sink.upto();
        let (live, without_redis) = match self.live(run, cursor, step.entries).await? {
            Ok(live) => (Some(live), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        if let Some(live) = &live {
            take_contiguous(sink, &live.items);
            if sink.upto() > cursor {
                return Ok(found(sink, live, false));
            }
            // Nothing behind the cursor in this very epoch: no need to ask Postgres.
            if live.items.is_empty() && live.last.is_some_and(|last| last == cursor) {
                return Ok(found(sink, live, live.ended));
            }
        }
        let stored = self.stored(run, filter, step.rows, sink).await?;
        if stored.watermark > cursor {
            let caught_up = live.is_none() && sink.upto() == stored.watermark;
            return Ok(ReadStatus {
                caught_up,
                ended: caught_up && stored.ended,
                without_redis,
                entries: 0,
            });
        }
        let Some(live) = live else {
            return Ok(ReadStatus {
                caught_up: true,
                ended: stored.ended,
                without_redis,
                entries: 0,
            });
        };
        if let Some(item) = live.items.first() {
            debug!(%run, %cursor, "a hole that neither Redis nor Postgres can fill");
            leap(sink, item);
            take_contiguous(sink, &live.items);
        }
        Ok(found(sink, &live, stored.ended))
    }

    /// The outer error is a broken answer, the inner one an outage.
    pub(super) async fn live(
        &self,
        run: Uuid,
        cursor: EventId,
        entries: usize,
    ) -> Result<Result<RedisPage, RedisFailure>, NotEntries> {
        let keys = self.keys.run(run);
        let reply: Result<(Vec<Option<String>>, Value), _> = self
            .redis
            .run(keys.slot, async |connection| {
                let mut pipeline = redis::pipe();
                pipeline
                    .cmd("HMGET")
                    .arg(&[keys.meta.as_str(), "epoch", "seq", "sealed"]);
                pipeline
                    .cmd("XRANGE")
                    .arg(&keys.stream)
                    .arg(format!("({cursor}"))
                    .arg("+")
                    .arg("COUNT")
                    .arg(entries);
                pipeline.query_async(connection).await
            })
            .await;
        let (meta, entries) = match reply {
            Ok(reply) => reply,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(Ok(RedisPage {
            last: last_id(&meta),
            ended: meta.get(2).is_some_and(Option::is_some),
            items: Entry::parse_range(entries)?,
        }))
    }

    /// Takes what Postgres holds behind the sink's cursor.
    async fn stored(
        &self,
        run: Uuid,
        filter: &Filter,
        rows: u16,
        sink: &mut impl Sink,
    ) -> Result<Stored, ReadError> {
        let cursor = sink.upto();
        let Some(coverage) = self.store.coverage(run).await? else {
            // The run was deleted while it was watched: nothing more will come.
            return Ok(Stored {
                watermark: cursor,
                ended: true,
            });
        };
        let stored = Stored {
            watermark: coverage.watermark,
            ended: coverage.ended,
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
        // An empty page says that the rest up to the watermark was stored before, under other ids, or
        // is not wanted.
        if events.is_empty() {
            sink.skip_to(coverage.watermark);
        }
        Ok(stored)
    }
}

/// What lies in Postgres.
struct Stored {
    /// Not behind the cursor: nothing was taken.
    watermark: EventId,
    ended: bool,
}

fn found(sink: &impl Sink, live: &RedisPage, ended: bool) -> ReadStatus {
    let caught_up = live.last.is_none_or(|last| last <= sink.upto());
    ReadStatus {
        caught_up,
        ended: caught_up && ended,
        without_redis: None,
        entries: live.items.len(),
    }
}

fn last_id(meta: &[Option<String>]) -> Option<EventId> {
    match meta {
        [Some(epoch), Some(seq), ..] => format!("{epoch}-{seq}").parse().ok(),
        _ => None,
    }
}

/// Adds entries for as long as each continues what is there.
fn take_contiguous(sink: &mut impl Sink, items: &[Result<Entry, Unreadable>]) {
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
            // How many events it was meant to hold is unknown: what lies between counts as lost to it.
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

/// Tells of what is missing before an entry, and steps over it.
fn leap(sink: &mut impl Sink, item: &Result<Entry, Unreadable>) {
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
