//! The length of a finished run's text, and where in the run a byte of it lies: what a `Range`
//! needs.
//!
//! Building an index makes the whole text once and keeps a mark about every [`MIN_SPACING_BYTES`]:
//! the cursor, and the state of the text there. Bounds: [`MAX_MARKS`] marks per text,
//! [`MAX_CACHED_INDEXES`] texts in memory, [`MAX_CONCURRENT_BUILDS`] builds at a time. Time:
//! [`BUILD_DEADLINE`] per build.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use super::plain_text::PlainText;
use crate::filter::Filter;
use crate::reader::{ReadError, Reader};

/// The shortest text between two marks. It doubles whenever a text has too many marks.
const MIN_SPACING_BYTES: u64 = 1024 * 1024;

/// Marks of one text.
const MAX_MARKS: usize = 64;

/// Texts whose index is kept.
const MAX_CACHED_INDEXES: usize = 64;

/// Texts that are indexed at a time.
const MAX_CONCURRENT_BUILDS: usize = 2;

/// The longest time for one build.
const BUILD_DEADLINE: Duration = Duration::from_secs(30);

/// Which text: a run up to an event, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSelection {
    /// The run.
    pub run: Uuid,
    /// The event after which it begins.
    pub after: EventId,
    /// The last event.
    pub upto: EventId,
    /// The [`redaction_revision`](runcast_store::runs::Coverage::redaction_revision) of the run.
    pub revision: i32,
    /// The channels.
    pub filter: Filter,
    /// Escape sequences are stripped.
    pub strip: bool,
}

/// A position in a text.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Bytes of the text before it.
    pub offset: u64,
    /// The event after which it lies.
    pub cursor: EventId,
    /// The state of the text there.
    pub plain: PlainText,
}

/// The index of one text.
#[derive(Debug)]
pub struct ByteIndex {
    /// Bytes of the text.
    pub length: u64,
    marks: Vec<Mark>,
}

impl ByteIndex {
    /// The last mark at or before this byte.
    pub fn mark(&self, offset: u64) -> Option<&Mark> {
        let at = self.marks.partition_point(|mark| mark.offset <= offset);
        self.marks.get(at.checked_sub(1)?)
    }
}

/// Indexes of texts, the newest first.
#[derive(Debug)]
pub struct ByteIndexCache {
    indexes: Mutex<VecDeque<(TextSelection, Arc<ByteIndex>)>>,
    builds: Semaphore,
}

impl Default for ByteIndexCache {
    fn default() -> Self {
        Self {
            indexes: Mutex::default(),
            builds: Semaphore::new(MAX_CONCURRENT_BUILDS),
        }
    }
}

impl ByteIndexCache {
    /// The index of a text, built if needed; None if that takes too long.
    pub async fn get_or_build(
        &self,
        reader: &Reader,
        subject: &TextSelection,
    ) -> Result<Option<Arc<ByteIndex>>, ReadError> {
        if let Some(cached) = self.cached(subject) {
            return Ok(Some(cached));
        }
        let built = timeout(BUILD_DEADLINE, async {
            // The semaphore is never closed.
            let _permit = self.builds.acquire().await.ok();
            match self.cached(subject) {
                Some(cached) => Ok(cached),
                None => build(reader, subject).await.map(Arc::new),
            }
        });
        let Ok(built) = built.await else {
            return Ok(None);
        };
        let built = built?;
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        indexes.retain(|(of, _)| of != subject);
        indexes.push_front((subject.clone(), Arc::clone(&built)));
        indexes.truncate(MAX_CACHED_INDEXES);
        Ok(Some(built))
    }

    fn cached(&self, subject: &TextSelection) -> Option<Arc<ByteIndex>> {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = indexes.iter().find(|(of, _)| of == subject);
        found.map(|(_, index)| Arc::clone(index))
    }
}

async fn build(reader: &Reader, subject: &TextSelection) -> Result<ByteIndex, ReadError> {
    let mut plain = PlainText::new(subject.strip);
    let (mut cursor, mut length) = (subject.after, 0);
    let mut marks = vec![Mark {
        offset: 0,
        cursor,
        plain: plain.clone(),
    }];
    let (mut spacing, mut marked) = (MIN_SPACING_BYTES, 0);
    let mut out = Vec::new();
    while cursor < subject.upto {
        let batch = reader.batch(subject.run, cursor, &subject.filter).await?;
        for item in batch
            .items
            .iter()
            .filter(|item| item.event.id <= subject.upto)
        {
            plain.push(&mut out, item);
        }
        if batch.upto == cursor {
            break;
        }
        cursor = batch.upto;
        length += out.len() as u64;
        out.clear();
        if length - marked >= spacing {
            marked = length;
            marks.push(Mark {
                offset: length,
                cursor,
                plain: plain.clone(),
            });
        }
        if marks.len() > MAX_MARKS {
            let mut odd = false;
            marks.retain(|_| {
                odd = !odd;
                odd
            });
            spacing *= 2;
        }
    }
    Ok(ByteIndex { length, marks })
}
