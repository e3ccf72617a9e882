//! Pages out of objects: the index from Postgres, the frames from the place by their ranges.
//!
//! Both are kept in a cache of [`CACHE_BYTES`] for all readers of the process, and one that many ask for at
//! once is fetched once. A page costs at most one index and the frames that its events lie in; frames without
//! an event of the wanted kinds are passed over. Every fetch has a deadline, [`FETCH_DEADLINE`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Channel, Head, Kind};
use runcast_common::protocol::event_id::EventId;
use tokio::time::timeout;
use uuid::Uuid;

use super::format::{self, DamagedObject, Frame, ObjectIndex};
use super::metrics::{Metrics, Reason};
use super::object_store::{ArchiveStore, ArchiveStoreError, SETTING, object_name};
use crate::envelope::{shown_id, without_envelope};
use runcast_store::archives::ArchiveObject;
use runcast_store::events::{EventPage, PAGE_BYTES, PAGE_EVENTS};
use runcast_store::{Store, StoreError};

/// Bytes of indexes and unpacked frames that one process keeps.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// How many those are, about: the cache divides itself by this number, and does not keep what is larger than a
/// part of it.
const CACHE_ITEMS: usize = 64;

/// Longest wait for a frame: a reader would rather hear that the place is away.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// Why the archived part of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Postgres, which knows what lies where.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place.
    #[error("the archive at {0}")]
    Place(#[from] ArchiveStoreError),
    /// The place did not answer in time.
    #[error("the archive at {place} does not answer within {FETCH_DEADLINE:?}")]
    Late {
        /// Where it is.
        place: String,
    },
    /// This process does not know the place.
    #[error("this run is archived, and {SETTING}, which says where, is not set for this service")]
    Unset,
    /// An object is not what was archived.
    #[error("the archived object {object} is damaged: {damage}")]
    Damaged {
        /// Its name.
        object: String,
        /// What is wrong with it.
        damage: DamagedObject,
    },
}

impl ReadError {
    /// True if the same read may succeed later, without anybody repairing anything.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Place(_) | Self::Late { .. } | Self::Unset => true,
            Self::Damaged { .. } => false,
        }
    }

    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Store(_) => None,
            Self::Place(ArchiveStoreError::Missing { .. }) => Some("missing"),
            Self::Place(ArchiveStoreError::Unreachable { .. }) | Self::Late { .. } => {
                Some("unreachable")
            }
            Self::Unset => Some("unset"),
            Self::Damaged { .. } => Some("damaged"),
        }
    }
}

/// Names what is kept: an index, or a frame by its number.
type Key = (Uuid, Option<usize>);

#[derive(Debug, Clone)]
enum CachedPart {
    Index(Arc<ObjectIndex>),
    Frame(Bytes),
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Key, CachedPart> for Weigh {
    fn weight(&self, _key: &Key, kept: &CachedPart) -> u64 {
        let bytes = match kept {
            CachedPart::Index(index) => index.size(),
            CachedPart::Frame(lines) => lines.len(),
        };
        (bytes + size_of::<(Key, CachedPart)>()) as u64
    }
}

/// Reads archived runs. Cloning is cheap; clones share the cache.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    place: Option<ArchiveStore>,
    cache: Cache<Key, CachedPart, Weigh>,
    meter: Metrics,
}

/// What a page still takes.
struct Room<'a> {
    channels: &'a [Channel],
    kinds: u16,
    events: usize,
    bytes: usize,
    taken: Vec<Event>,
}

impl Archive {
    /// An archive at this place, if there is one; without it every archived run is [`ReadError::Unset`].
    #[must_use]
    pub fn new(store: Store, place: Option<ArchiveStore>, meter: Metrics) -> Self {
        let cache = Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, Weigh);
        Self(Arc::new(Shared {
            store,
            place,
            cache,
            meter,
        }))
    }

    /// The first archived events behind `from` that a page asks for; none if the archive has no more of them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn after(
        &self,
        page: &EventPage<'_>,
        mut from: EventId,
    ) -> Result<Vec<Event>, ReadError> {
        let mut room = Room::new(page);
        while let Some(object) = self.0.store.object_after(page.run, from).await? {
            let index = self.index(&object).await?;
            let first = index.frames.partition_point(|frame| frame.last <= from);
            for (number, frame) in index.frames.iter().enumerate().skip(first) {
                if frame.kinds & room.kinds == 0 {
                    continue;
                }
                let raw = self.frame(&object, number, frame).await?;
                let lines: Vec<Bytes> = format::lines(&raw).collect();
                let first =
                    lines.partition_point(|line| shown_id(line).is_some_and(|id| id <= from));
                for line in &lines[first..] {
                    if !room
                        .take(line)
                        .map_err(|damage| self.damaged(&object, damage))?
                    {
                        return Ok(room.taken);
                    }
                }
            }
            if !room.taken.is_empty() {
                return Ok(room.taken);
            }
            from = object.upto;
        }
        Ok(Vec::new())
    }

    /// The last archived events before `from` that a page asks for, in ascending order.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn before(
        &self,
        page: &EventPage<'_>,
        mut from: EventId,
    ) -> Result<Vec<Event>, ReadError> {
        let mut room = Room::new(page);
        'page: while let Some(object) = self.0.store.object_before(page.run, from).await? {
            let index = self.index(&object).await?;
            let end = index.frames.partition_point(|frame| frame.first < from);
            for (number, frame) in index.frames.iter().enumerate().take(end).rev() {
                if frame.kinds & room.kinds == 0 {
                    continue;
                }
                let raw = self.frame(&object, number, frame).await?;
                let lines: Vec<Bytes> = format::lines(&raw).collect();
                let end = lines.partition_point(|line| shown_id(line).is_some_and(|id| id < from));
                for line in lines[..end].iter().rev() {
                    if !room
                        .take(line)
                        .map_err(|damage| self.damaged(&object, damage))?
                    {
                        break 'page;
                    }
                }
            }
            if !room.taken.is_empty() {
                break;
            }
            // Its first event may stand right behind this id, which is itself part of what came before.
            from = EventId::new(object.after.epoch, object.after.seq + 1);
        }
        room.taken.reverse();
        Ok(room.taken)
    }

    /// The last archived seq of each epoch of a run.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn epochs(&self, run: Uuid) -> Result<BTreeMap<u64, u64>, ReadError> {
        let mut ends = BTreeMap::new();
        let mut from = EventId::ZERO;
        while let Some(object) = self.0.store.object_after(run, from).await? {
            let index = self.index(&object).await?;
            for (number, frame) in index.frames.iter().enumerate() {
                if frame.first.epoch < frame.last.epoch {
                    let raw = self.frame(&object, number, frame).await?;
                    let ids = format::lines(&raw).filter_map(|line| shown_id(&line));
                    ends.extend(ids.map(|id| (id.epoch, id.seq)));
                } else {
                    ends.insert(frame.last.epoch, frame.last.seq);
                }
            }
            from = object.upto;
        }
        Ok(ends)
    }

    async fn index(&self, object: &ArchiveObject) -> Result<Arc<ObjectIndex>, ReadError> {
        let fetch = async {
            let json = self.0.store.archive_index(object.id).await?;
            // Retention took the run away since it was looked up.
            let json = json.ok_or_else(|| {
                self.damaged(
                    object,
                    DamagedObject("it was removed while it was being read".into()),
                )
            })?;
            let index =
                ObjectIndex::from_json(&json).map_err(|damage| self.damaged(object, damage))?;
            Ok::<_, ReadError>(CachedPart::Index(Arc::new(index)))
        };
        match self
            .0
            .cache
            .get_or_insert_async(&(object.id, None), fetch)
            .await?
        {
            CachedPart::Index(index) => Ok(index),
            CachedPart::Frame(_) => {
                Err(self.damaged(object, DamagedObject("its index was mixed up".into())))
            }
        }
    }

    async fn frame(
        &self,
        object: &ArchiveObject,
        number: usize,
        frame: &Frame,
    ) -> Result<Bytes, ReadError> {
        let fetch = async {
            let fetched = self.fetch(object, frame).await;
            if let Some(reason) = fetched.as_ref().err().and_then(ReadError::reason) {
                self.0.meter.unread.get_or_create(&Reason { reason }).inc();
            }
            fetched.map(CachedPart::Frame)
        };
        match self
            .0
            .cache
            .get_or_insert_async(&(object.id, Some(number)), fetch)
            .await?
        {
            CachedPart::Frame(lines) => Ok(lines),
            CachedPart::Index(_) => {
                Err(self.damaged(object, DamagedObject("a frame was mixed up".into())))
            }
        }
    }

    async fn fetch(&self, object: &ArchiveObject, frame: &Frame) -> Result<Bytes, ReadError> {
        let place = self.0.place.as_ref().ok_or(ReadError::Unset)?;
        let name = object_name(object.run, object.id);
        let range = frame.offset..frame.offset + frame.length;
        let late = |_elapsed| ReadError::Late {
            place: place.to_string(),
        };
        let end = range.end;
        let stored = match timeout(FETCH_DEADLINE, place.range(&name, range))
            .await
            .map_err(late)?
        {
            Ok(stored) => stored,
            Err(refused) => {
                // A range beyond the end is refused by some, and that is no outage.
                let length = timeout(FETCH_DEADLINE, place.length(&name))
                    .await
                    .map_err(late)?;
                return Err(match length {
                    Ok(length) if length < end => self.damaged(
                        object,
                        DamagedObject(format!("it is cut short after {length} bytes")),
                    ),
                    _ => refused.into(),
                });
            }
        };
        format::unpack(frame, &stored).map_err(|damage| self.damaged(object, damage))
    }

    fn damaged(&self, object: &ArchiveObject, damage: DamagedObject) -> ReadError {
        ReadError::Damaged {
            object: object_name(object.run, object.id),
            damage,
        }
    }
}

impl<'a> Room<'a> {
    fn new(page: &EventPage<'a>) -> Self {
        let bits = page
            .channels
            .iter()
            .map(|channel| 1 << channel.kind.number());
        let kinds = match page.channels {
            [] => u16::MAX,
            _ => bits.fold(1 << Kind::Gap.number(), |kinds: u16, bit: u16| kinds | bit),
        };
        Self {
            channels: page.channels,
            kinds,
            events: usize::from(page.limit.min(PAGE_EVENTS)),
            bytes: PAGE_BYTES,
            taken: Vec::new(),
        }
    }

    /// Takes a line if it is wanted. False if the page is full without it.
    fn take(&mut self, shown: &Bytes) -> Result<bool, DamagedObject> {
        let event = without_envelope(shown)
            .ok_or_else(|| DamagedObject("a line of it is no event".into()))?;
        if !self.channels.is_empty() {
            let head = Head::parse(&event.line);
            let wanted = head.is_ok_and(|head| {
                let mut channels = self.channels.iter();
                head.kind == Kind::Gap
                    || channels.any(|channel| channel.contains(head.kind, head.variation))
            });
            if !wanted {
                return Ok(true);
            }
        }
        // The first one belongs however large it is.
        let fits = event.line.len() <= self.bytes || self.taken.is_empty();
        if self.taken.len() == self.events || !fits {
            return Ok(false);
        }
        self.bytes = self.bytes.saturating_sub(event.line.len());
        self.taken.push(event);
        Ok(true)
    }
}
