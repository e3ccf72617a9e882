//! Reads pages from archive objects: the index from Postgres, the frames from the object store by
//! their ranges.
//!
//! Data: a cache of [`CACHE_BYTES`] for indexes and decompressed frames, shared by all readers of
//! the process. Readers that need the same part at once share one fetch. A page costs at most one
//! index and the frames in which its events lie; frames without an event of the requested kinds are
//! skipped. Time: every fetch has a deadline, [`FETCH_DEADLINE`].

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
use super::object_store::{ARCHIVE_SETTING, ArchiveStore, ArchiveStoreError, object_name};
use crate::envelope::{event_id_of, without_envelope};
use runcast_store::archives::ArchiveObject;
use runcast_store::events::{EventPage, PAGE_BYTES, PAGE_EVENTS};
use runcast_store::{Store, StoreError};

/// Bytes of indexes and decompressed frames that one process keeps.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// About how many those are. The cache divides itself by this number, and does not keep what is
/// larger than a part of it.
const CACHE_ITEMS: usize = 64;

/// The longest wait for a frame: a reader should rather learn that the store is down.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// Why the archived part of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveReadError {
    /// Postgres cannot be read. It knows which objects exist.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive store failed.
    #[error("the archive at {0}")]
    ArchiveStore(#[from] ArchiveStoreError),
    /// The archive store did not answer in time.
    #[error("the archive at {archive_store} does not answer within {FETCH_DEADLINE:?}")]
    TimedOut {
        /// The store.
        archive_store: String,
    },
    /// This process has no archive store.
    #[error(
        "this run is archived, but {ARCHIVE_SETTING} is not set for this service; set it to where the archive is"
    )]
    NotConfigured,
    /// An object differs from what was archived.
    #[error("the archived object {object} is damaged: {damage}")]
    Damaged {
        /// The name of the object.
        object: String,
        /// What is wrong with it.
        damage: DamagedObject,
    },
}

impl ArchiveReadError {
    /// True if the same read may succeed later without a repair.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::ArchiveStore(_) | Self::TimedOut { .. } | Self::NotConfigured => true,
            Self::Damaged { .. } => false,
        }
    }

    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Store(_) => None,
            Self::ArchiveStore(ArchiveStoreError::Missing { .. }) => Some("missing"),
            Self::ArchiveStore(ArchiveStoreError::Unreachable { .. }) | Self::TimedOut { .. } => {
                Some("unreachable")
            }
            Self::NotConfigured => Some("unset"),
            Self::Damaged { .. } => Some("damaged"),
        }
    }
}

/// Names a cached part: an index, or a frame by its number.
type CacheKey = (Uuid, Option<usize>);

#[derive(Debug, Clone)]
enum CachedPart {
    Index(Arc<ObjectIndex>),
    Frame(Bytes),
}

#[derive(Debug, Clone)]
struct CacheWeights;

impl Weighter<CacheKey, CachedPart> for CacheWeights {
    fn weight(&self, _key: &CacheKey, part: &CachedPart) -> u64 {
        let bytes = match part {
            CachedPart::Index(index) => index.memory_bytes(),
            CachedPart::Frame(lines) => lines.len(),
        };
        (bytes + size_of::<(CacheKey, CachedPart)>()) as u64
    }
}

/// Reads archived runs. Cloning is cheap; clones share the cache.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    archive_store: Option<ArchiveStore>,
    cache: Cache<CacheKey, CachedPart, CacheWeights>,
    metrics: Metrics,
}

/// The events of a page so far, and how much more it takes.
struct PageFill<'a> {
    channels: &'a [Channel],
    kinds: u16,
    max_events: usize,
    bytes_left: usize,
    events: Vec<Event>,
}

impl Archive {
    /// The archive in this store. Without a store, reads of archived runs fail with
    /// [`ArchiveReadError::NotConfigured`].
    pub fn new(store: Store, archive_store: Option<ArchiveStore>, metrics: Metrics) -> Self {
        let cache = Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, CacheWeights);
        Self(Arc::new(Inner {
            store,
            archive_store,
            cache,
            metrics,
        }))
    }

    /// The first archived events after `from` that the page asks for; none if the archive has no
    /// more.
    pub async fn events_after(
        &self,
        page: &EventPage<'_>,
        mut from: EventId,
    ) -> Result<Vec<Event>, ArchiveReadError> {
        let mut fill = PageFill::new(page);
        while let Some(object) = self.0.store.object_after(page.run, from).await? {
            let index = self.index(&object).await?;
            let first = index.frames.partition_point(|frame| frame.last <= from);
            for (number, frame) in index.frames.iter().enumerate().skip(first) {
                if frame.kinds & fill.kinds == 0 {
                    continue;
                }
                let raw = self.frame(&object, number, frame).await?;
                let lines: Vec<Bytes> = format::lines(&raw).collect();
                let first =
                    lines.partition_point(|line| event_id_of(line).is_some_and(|id| id <= from));
                for line in &lines[first..] {
                    if !fill
                        .push(line)
                        .map_err(|damage| self.damaged(&object, damage))?
                    {
                        return Ok(fill.events);
                    }
                }
            }
            if !fill.events.is_empty() {
                return Ok(fill.events);
            }
            from = object.upto;
        }
        Ok(Vec::new())
    }

    /// The last archived events before `from` that the page asks for, in ascending order.
    pub async fn events_before(
        &self,
        page: &EventPage<'_>,
        mut from: EventId,
    ) -> Result<Vec<Event>, ArchiveReadError> {
        let mut fill = PageFill::new(page);
        'page: while let Some(object) = self.0.store.object_before(page.run, from).await? {
            let index = self.index(&object).await?;
            let end = index.frames.partition_point(|frame| frame.first < from);
            for (number, frame) in index.frames.iter().enumerate().take(end).rev() {
                if frame.kinds & fill.kinds == 0 {
                    continue;
                }
                let raw = self.frame(&object, number, frame).await?;
                let lines: Vec<Bytes> = format::lines(&raw).collect();
                let end =
                    lines.partition_point(|line| event_id_of(line).is_some_and(|id| id < from));
                for line in lines[..end].iter().rev() {
                    if !fill
                        .push(line)
                        .map_err(|damage| self.damaged(&object, damage))?
                    {
                        break 'page;
                    }
                }
            }
            if !fill.events.is_empty() {
                break;
            }
            // The first event of this object may follow `after` directly, and `after` itself
            // belongs to the object before.
            from = EventId::new(object.after.epoch, object.after.seq + 1);
        }
        fill.events.reverse();
        Ok(fill.events)
    }

    /// The last archived seq of each epoch of a run.
    pub async fn epochs(&self, run: Uuid) -> Result<BTreeMap<u64, u64>, ArchiveReadError> {
        let mut ends = BTreeMap::new();
        let mut from = EventId::ZERO;
        while let Some(object) = self.0.store.object_after(run, from).await? {
            let index = self.index(&object).await?;
            for (number, frame) in index.frames.iter().enumerate() {
                if frame.first.epoch < frame.last.epoch {
                    let raw = self.frame(&object, number, frame).await?;
                    let ids = format::lines(&raw).filter_map(|line| event_id_of(&line));
                    ends.extend(ids.map(|id| (id.epoch, id.seq)));
                } else {
                    ends.insert(frame.last.epoch, frame.last.seq);
                }
            }
            from = object.upto;
        }
        Ok(ends)
    }

    async fn index(&self, object: &ArchiveObject) -> Result<Arc<ObjectIndex>, ArchiveReadError> {
        let fetch = async {
            let json = self.0.store.archive_index(object.id).await?;
            // Retention has removed the run since the object was looked up.
            let json = json.ok_or_else(|| {
                self.damaged(
                    object,
                    DamagedObject("it was removed while it was being read".into()),
                )
            })?;
            let index =
                ObjectIndex::from_json(&json).map_err(|damage| self.damaged(object, damage))?;
            Ok::<_, ArchiveReadError>(CachedPart::Index(Arc::new(index)))
        };
        match self
            .0
            .cache
            .get_or_insert_async(&(object.id, None), fetch)
            .await?
        {
            CachedPart::Index(index) => Ok(index),
            CachedPart::Frame(_) => Err(self.damaged(
                object,
                DamagedObject("the cache returned a frame in place of its index".into()),
            )),
        }
    }

    async fn frame(
        &self,
        object: &ArchiveObject,
        number: usize,
        frame: &Frame,
    ) -> Result<Bytes, ArchiveReadError> {
        let fetch = async {
            let fetched = self.fetch(object, frame).await;
            if let Some(reason) = fetched.as_ref().err().and_then(ArchiveReadError::reason) {
                self.0
                    .metrics
                    .unread
                    .get_or_create(&Reason { reason })
                    .inc();
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
            CachedPart::Index(_) => Err(self.damaged(
                object,
                DamagedObject("the cache returned its index in place of a frame".into()),
            )),
        }
    }

    async fn fetch(
        &self,
        object: &ArchiveObject,
        frame: &Frame,
    ) -> Result<Bytes, ArchiveReadError> {
        let archive_store = self
            .0
            .archive_store
            .as_ref()
            .ok_or(ArchiveReadError::NotConfigured)?;
        let name = object_name(object.run, object.id);
        let range = frame.offset..frame.offset + frame.length;
        let timed_out = |_elapsed| ArchiveReadError::TimedOut {
            archive_store: archive_store.to_string(),
        };
        let end = range.end;
        let stored = match timeout(FETCH_DEADLINE, archive_store.get_range(&name, range))
            .await
            .map_err(timed_out)?
        {
            Ok(stored) => stored,
            Err(error) => {
                // Some stores refuse a range beyond the end. The object is damaged then, and the
                // store is up.
                let length = timeout(FETCH_DEADLINE, archive_store.length(&name))
                    .await
                    .map_err(timed_out)?;
                return Err(match length {
                    Ok(length) if length < end => self.damaged(
                        object,
                        DamagedObject(format!("it is cut short after {length} bytes")),
                    ),
                    _ => error.into(),
                });
            }
        };
        format::decompress_frame(frame, &stored).map_err(|damage| self.damaged(object, damage))
    }

    fn damaged(&self, object: &ArchiveObject, damage: DamagedObject) -> ArchiveReadError {
        ArchiveReadError::Damaged {
            object: object_name(object.run, object.id),
            damage,
        }
    }
}

impl<'a> PageFill<'a> {
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
            max_events: usize::from(page.limit.min(PAGE_EVENTS)),
            bytes_left: PAGE_BYTES,
            events: Vec::new(),
        }
    }

    /// Adds a line if the page asks for it. Returns false if the page is full without it.
    fn push(&mut self, line: &Bytes) -> Result<bool, DamagedObject> {
        let event = without_envelope(line)
            .ok_or_else(|| DamagedObject("one of its lines is not an event".into()))?;
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
        // The first event fits however large it is.
        let fits = event.line.len() <= self.bytes_left || self.events.is_empty();
        if self.events.len() == self.max_events || !fits {
            return Ok(false);
        }
        self.bytes_left = self.bytes_left.saturating_sub(event.line.len());
        self.events.push(event);
        Ok(true)
    }
}
