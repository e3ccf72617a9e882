//! How long the text of a finished run is, and where in it a byte lies: what a `Range` needs.
//!
//! Measuring makes the whole text once and keeps, every [`MARK_BYTES`] or more of it, a mark: the
//! cursor, and how the text goes on from there. At most [`MOST_MARKS`] marks of [`MOST_MEASURES`] texts
//! are kept in memory, [`AT_ONCE`] texts are measured at a time, for [`MOST_TIME`] each.

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

const MARK_BYTES: u64 = 1024 * 1024;
const MOST_MARKS: usize = 64;
const MOST_MEASURES: usize = 64;
const AT_ONCE: usize = 2;
const MOST_TIME: Duration = Duration::from_secs(30);

/// Which text: a run up to an event, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The run.
    pub run: Uuid,
    /// Behind which event it begins.
    pub after: EventId,
    /// The last event.
    pub upto: EventId,
    /// The channels.
    pub filter: Filter,
    /// Escape sequences are stripped.
    pub strip: bool,
}

/// A place in a text.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Bytes before it.
    pub offset: u64,
    /// Behind which event it lies.
    pub cursor: EventId,
    /// How the text goes on.
    pub plain: PlainText,
}

/// A text that has been measured.
#[derive(Debug)]
pub struct ByteIndex {
    /// Bytes of the text.
    pub length: u64,
    marks: Vec<Mark>,
}

impl ByteIndex {
    /// The last mark at or before this byte.
    #[must_use]
    pub fn mark(&self, offset: u64) -> Option<&Mark> {
        let at = self.marks.partition_point(|mark| mark.offset <= offset);
        self.marks.get(at.checked_sub(1)?)
    }
}

/// Measured texts, the last used first.
#[derive(Debug)]
pub struct ByteIndexCache {
    known: Mutex<VecDeque<(Subject, Arc<ByteIndex>)>>,
    places: Semaphore,
}

impl Default for ByteIndexCache {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }
}

impl ByteIndexCache {
    /// The measure of a text; none if it takes too long.
    ///
    /// # Errors
    /// [`ReadError`] if the run cannot be read.
    pub async fn of(
        &self,
        reader: &Reader,
        subject: &Subject,
    ) -> Result<Option<Arc<ByteIndex>>, ReadError> {
        if let Some(known) = self.known(subject) {
            return Ok(Some(known));
        }
        let measured = timeout(MOST_TIME, async {
            // The semaphore is never closed.
            let _place = self.places.acquire().await.ok();
            match self.known(subject) {
                Some(known) => Ok(known),
                None => measure(reader, subject).await.map(Arc::new),
            }
        });
        let Ok(measured) = measured.await else {
            return Ok(None);
        };
        let measured = measured?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, _)| of != subject);
        known.push_front((subject.clone(), Arc::clone(&measured)));
        known.truncate(MOST_MEASURES);
        Ok(Some(measured))
    }

    fn known(&self, subject: &Subject) -> Option<Arc<ByteIndex>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(of, _)| of == subject);
        found.map(|(_, measure)| Arc::clone(measure))
    }
}

async fn measure(reader: &Reader, subject: &Subject) -> Result<ByteIndex, ReadError> {
    let mut plain = PlainText::new(subject.strip);
    let (mut cursor, mut length) = (subject.after, 0);
    let mut marks = vec![Mark {
        offset: 0,
        cursor,
        plain: plain.clone(),
    }];
    let (mut spacing, mut last) = (MARK_BYTES, 0);
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
        if length - last >= spacing {
            last = length;
            marks.push(Mark {
                offset: length,
                cursor,
                plain: plain.clone(),
            });
        }
        if marks.len() > MOST_MARKS {
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
