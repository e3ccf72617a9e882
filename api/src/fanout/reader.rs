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
use runcast_common::entry::{Entry, NotEntries, Unreadable};
use runcast_common::id::EventId;
use runcast_common::keys::Keys;
use runcast_common::redis;
use tracing::debug;
use uuid::Uuid;

use super::frame::{Encoder, Frames};
use crate::archive;
use crate::history::History;
use crate::store::events::{PAGE_EVENTS, Page, Start};
use crate::store::runs::Run;
use crate::store::{Store, StoreError};

/// Entries of one read from Redis: up to 8 MiB if they are as large as they may be.
const READ_ENTRIES: usize = 32;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres, which alone has what is asked for.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive, where what is asked for lies.
    #[error(transparent)]
    Archive(#[from] archive::read::ReadError),
    /// Redis answered in another shape.
    #[error(transparent)]
    NotEntries(#[from] NotEntries),
}

/// What a read found.
#[derive(Debug)]
pub struct Piece {
    /// Frames behind the cursor; without any if the reader has caught up.
    pub frames: Frames,
    /// Everything that is known of the run is before the end of `frames`.
    pub caught_up: bool,
    /// The run is over, and `caught_up` is final.
    pub ended: bool,
    /// Why Redis could not be asked, if so: then new events are seen when Postgres has stored them.
    pub without_redis: Option<String>,
}

/// Reads runs. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Reader {
    redis: Redis,
    store: Store,
    history: History,
    keys: Keys,
}

/// What Redis knows of a run.
struct Live {
    last: Option<EventId>,
    ended: bool,
    items: Vec<Result<Entry, Unreadable>>,
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

    /// Reads on from `cursor`.
    ///
    /// # Errors
    /// [`ReadError`] if the answer needs Postgres or the archive and it cannot be asked.
    pub async fn read(&self, run: Uuid, cursor: EventId) -> Result<Piece, ReadError> {
        let (live, without_redis) = match self.live(run, cursor).await? {
            Ok(live) => (Some(live), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        if let Some(live) = &live {
            let mut encoder = Encoder::new(cursor);
            encode_contiguous(&mut encoder, &live.items);
            if encoder.upto() > cursor {
                return Ok(piece(encoder, live, false));
            }
            // Nothing behind the cursor in this very epoch: no need to ask Postgres.
            if live.items.is_empty() && live.last.is_some_and(|last| last == cursor) {
                return Ok(piece(encoder, live, live.ended));
            }
        }
        let stored = self.stored(run, cursor).await?;
        if let Some(encoder) = stored.encoder {
            let caught_up = live.is_none() && encoder.upto() == stored.watermark;
            return Ok(Piece {
                frames: encoder.finish(),
                caught_up,
                ended: caught_up && stored.ended,
                without_redis,
            });
        }
        let mut encoder = Encoder::new(cursor);
        let Some(live) = live else {
            return Ok(Piece {
                frames: encoder.finish(),
                caught_up: true,
                ended: stored.ended,
                without_redis,
            });
        };
        if let Some(item) = live.items.first() {
            debug!(%run, %cursor, "a hole that neither Redis nor Postgres can fill");
            leap(&mut encoder, item);
            encode_contiguous(&mut encoder, &live.items);
        }
        Ok(piece(encoder, &live, stored.ended))
    }

    /// The outer error is a broken answer, the inner one an outage.
    async fn live(
        &self,
        run: Uuid,
        cursor: EventId,
    ) -> Result<Result<Live, RedisFailure>, NotEntries> {
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
                    .arg(READ_ENTRIES);
                pipeline.query_async(connection).await
            })
            .await;
        let (meta, entries) = match reply {
            Ok(reply) => reply,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(Ok(Live {
            last: last_id(&meta),
            ended: meta.get(2).is_some_and(Option::is_some),
            items: Entry::parse_range(entries)?,
        }))
    }

    async fn stored(&self, run: Uuid, cursor: EventId) -> Result<Stored, ReadError> {
        let Some(coverage) = self.store.coverage(run).await? else {
            // The run was deleted while it was watched: nothing more will come.
            return Ok(Stored {
                watermark: cursor,
                ended: true,
                encoder: None,
            });
        };
        let mut stored = Stored {
            watermark: coverage.watermark,
            ended: coverage.ended,
            encoder: None,
        };
        if coverage.watermark <= cursor {
            return Ok(stored);
        }
        let page = Page {
            run,
            from: Start::After(cursor),
            coverage,
            channels: &[],
            limit: PAGE_EVENTS,
        };
        let events = self.history.events(&page).await?;
        let mut encoder = Encoder::new(cursor);
        for event in &events {
            if event.id.epoch != encoder.upto().epoch && encoder.upto() != EventId::ZERO {
                let before = EventId::new(event.id.epoch, 0);
                encoder.gap(before, event.id, None, "reborn");
            }
            encoder.event(event);
        }
        // An empty page says that the rest up to the watermark was stored before, under other ids.
        if events.is_empty() {
            encoder.skip_to(coverage.watermark);
        }
        stored.encoder = Some(encoder);
        Ok(stored)
    }
}

struct Stored {
    watermark: EventId,
    ended: bool,
    /// What lies between the cursor and the watermark, if anything does.
    encoder: Option<Encoder>,
}

fn piece(encoder: Encoder, live: &Live, ended: bool) -> Piece {
    let caught_up = live.last.is_none_or(|last| last <= encoder.upto());
    Piece {
        frames: encoder.finish(),
        caught_up,
        ended: caught_up && ended,
        without_redis: None,
    }
}

fn last_id(meta: &[Option<String>]) -> Option<EventId> {
    match meta {
        [Some(epoch), Some(seq), ..] => format!("{epoch}-{seq}").parse().ok(),
        _ => None,
    }
}

/// Adds entries for as long as each continues what is there.
fn encode_contiguous(encoder: &mut Encoder, items: &[Result<Entry, Unreadable>]) {
    for item in items {
        let upto = encoder.upto();
        match item {
            Ok(entry) if entry.last <= upto => {}
            Ok(entry) => {
                let first = entry.first();
                let continues = first.epoch == upto.epoch && first.seq <= upto.seq + 1;
                if !continues {
                    return;
                }
                for event in entry.events().filter(|event| event.id > upto) {
                    encoder.event(&event);
                }
            }
            Err(unreadable) if unreadable.id <= upto => {}
            // How many events it was meant to hold is unknown: what lies between counts as lost to it.
            Err(unreadable) if unreadable.id.epoch == upto.epoch => {
                let next = EventId::new(upto.epoch, unreadable.id.seq + 1);
                encoder.gap(
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
fn leap(encoder: &mut Encoder, item: &Result<Entry, Unreadable>) {
    let upto = encoder.upto();
    let first = match item {
        Ok(entry) => entry.first(),
        Err(unreadable) => EventId::new(unreadable.id.epoch, 1),
    };
    let before = EventId::new(first.epoch, first.seq - 1);
    if first.epoch == upto.epoch {
        encoder.gap(before, first, Some(first.seq - upto.seq - 1), "lost");
    } else if upto == EventId::ZERO && first.seq == 1 {
        encoder.skip_to(before);
    } else if upto == EventId::ZERO {
        encoder.gap(before, first, Some(first.seq - 1), "lost");
    } else {
        encoder.gap(before, first, None, "reborn");
    }
}
