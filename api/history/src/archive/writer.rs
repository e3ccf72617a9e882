//! From rows to an object, and back: what is written is read again in full before anything may go.
//!
//! Two passes over the run's rows, page by page. The first packs them and sends them on; the second reads the
//! object from the place, unpacks it, and compares it with the rows line by line, so a damage on the way to
//! the place, in it, and on the way back is found, whatever it is. Memory: a page of rows, a part and a frame,
//! and the index.

use std::time::Duration;

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::format::{self, DamagedObject, ObjectBuilder, ObjectIndex};
use super::object_store::{ArchiveStore, ArchiveStoreError, object_name};
use super::upload::{PART_BYTES, Upload};
use crate::envelope::with_envelope;
use runcast_store::archives::{ArchiveAttempt, WrittenArchive};
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::runs::Coverage;
use runcast_store::{Store, StoreError};

/// Longest time for one run: some terabytes. An attempt that is older is nobody's.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(12 * 3600);

/// Why a run was not archived. Its rows are where they were.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place.
    #[error(transparent)]
    Place(#[from] ArchiveStoreError),
    /// zstd.
    #[error("packing failed: {0}")]
    Packing(#[from] std::io::Error),
    /// What was read back is not what was written.
    #[error("the object {object} was written and is damaged: {damage}")]
    Damaged {
        /// Its name.
        object: String,
        /// What is wrong with it.
        damage: DamagedObject,
    },
    /// The rows of the run are not what it counted. Somebody should look.
    #[error(
        "the rows of run {run} do not agree with what was counted when they were stored: {what}"
    )]
    Rows {
        /// The run.
        run: Uuid,
        /// Both figures.
        what: String,
    },
    /// Another attempt has begun, or the run has changed meanwhile.
    #[error("run {0} was changed, or taken on by another worker, while it was being archived")]
    Overtaken(Uuid),
    /// No end within [`ATTEMPT_DEADLINE`].
    #[error("run {0} could not be archived within {ATTEMPT_DEADLINE:?}")]
    Late(Uuid),
}

/// Writes the object of an attempt, reads it back and compares it. What it came to, and its index, are for
/// [`Store::keep_archive`].
///
/// # Errors
/// [`WriteError`]; whatever was written is then noted in Postgres, and deleted in time.
pub async fn archive(
    store: &Store,
    place: &ArchiveStore,
    attempt: &ArchiveAttempt,
) -> Result<(WrittenArchive, Vec<u8>), WriteError> {
    let object = object_name(attempt.run, attempt.id);
    let index = write(store, place, attempt, &object).await?;
    check_rows(attempt, &index)?;
    if !store.note_written(attempt.id).await? {
        return Err(WriteError::Overtaken(attempt.run));
    }
    let stored_bytes = compare(store, place, attempt, &object, &index).await?;
    let written = WrittenArchive {
        events: index.events,
        line_bytes: index.line_bytes,
        raw_bytes: index.raw_bytes,
        stored_bytes,
    };
    Ok((written, index.to_json()?))
}

/// The rows that an attempt is about, page by page.
struct Rows<'a> {
    store: &'a Store,
    attempt: &'a ArchiveAttempt,
    from: EventId,
}

impl Rows<'_> {
    /// The next page; empty at the end.
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        let page = EventPage {
            run: self.attempt.run,
            after: self.from,
            coverage: Coverage {
                watermark: self.attempt.upto,
                ended: true,
                archived: self.attempt.after,
            },
            channels: &[],
            limit: PAGE_EVENTS,
        };
        let events = self.store.events(&page).await?;
        if let Some(last) = events.last() {
            self.from = last.id;
        }
        Ok(events)
    }
}

const fn rows<'a>(store: &'a Store, attempt: &'a ArchiveAttempt) -> Rows<'a> {
    Rows {
        store,
        attempt,
        from: attempt.after,
    }
}

async fn write(
    store: &Store,
    place: &ArchiveStore,
    attempt: &ArchiveAttempt,
    object: &str,
) -> Result<ObjectIndex, WriteError> {
    let before = attempt
        .before
        .as_deref()
        .map(ObjectIndex::from_json)
        .transpose();
    let before = before.map_err(|damage| WriteError::Damaged {
        object: format!("before {object}"),
        damage,
    })?;
    let mut builder = ObjectBuilder::new(attempt.run, attempt.after, before.as_ref())?;
    let mut upload = Upload::new(place, object);
    let mut rows = rows(store, attempt);
    loop {
        let events = rows.next().await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            builder.add(event, upload.bytes())?;
        }
        while upload.is_full() {
            if let Some(id) = upload.begin().await?
                && !store.note_upload(attempt.id, &id).await?
            {
                return Err(WriteError::Overtaken(attempt.run));
            }
            upload.send().await?;
        }
    }
    let index = builder.finish(attempt.upto, upload.bytes())?;
    upload.finish().await?;
    Ok(index)
}

/// Compares what the rows came to with what was counted when they were stored.
fn check_rows(attempt: &ArchiveAttempt, index: &ObjectIndex) -> Result<(), WriteError> {
    let differ = |what: String| {
        Err(WriteError::Rows {
            run: attempt.run,
            what,
        })
    };
    if (index.events, index.line_bytes) != (attempt.events, attempt.line_bytes) {
        return differ(format!(
            "{} events of {} bytes instead of {} of {}",
            index.events, index.line_bytes, attempt.events, attempt.line_bytes
        ));
    }
    // A line that was no event is part of its producer's seal, and a note stands in its place.
    if index.notes > 0 {
        return Ok(());
    }
    for (producer, seal) in &attempt.producers {
        let found = index.seals.get(producer).copied().unwrap_or_default();
        if found != *seal {
            return differ(format!(
                "producer {producer} has {found:?} instead of {seal:?}"
            ));
        }
    }
    Ok(())
}

/// Reads an object back and compares it with the rows; gives its length.
async fn compare(
    store: &Store,
    place: &ArchiveStore,
    attempt: &ArchiveAttempt,
    object: &str,
    index: &ObjectIndex,
) -> Result<u64, WriteError> {
    let damaged = |damage| WriteError::Damaged {
        object: object.to_owned(),
        damage,
    };
    let mut rows = rows(store, attempt);
    let mut events = Vec::new().into_iter();
    let mut expected = Vec::new();
    let mut frames = &index.frames[..];
    while let Some(first) = frames.first() {
        // As many frames as a part holds, at least one, by one request.
        let limit = first.offset + PART_BYTES as u64;
        let count = frames
            .partition_point(|frame| frame.offset + frame.length <= limit)
            .max(1);
        let (these, rest) = frames.split_at(count);
        let end = these.last().map_or(0, |frame| frame.offset + frame.length);
        let stored = place.range(object, first.offset..end).await?;
        for frame in these {
            let at = |offset: u64| {
                usize::try_from(offset - first.offset)
                    .unwrap_or(usize::MAX)
                    .min(stored.len())
            };
            let raw = format::unpack(
                frame,
                &stored[at(frame.offset)..at(frame.offset + frame.length)],
            );
            for line in format::lines(&raw.map_err(damaged)?) {
                let event = match events.next() {
                    Some(event) => event,
                    None => {
                        events = rows.next().await?.into_iter();
                        let more = events.next();
                        more.ok_or_else(|| {
                            damaged(DamagedObject(
                                "it has more lines than the run has rows".into(),
                            ))
                        })?
                    }
                };
                compare_line(&event, &line, &mut expected).map_err(damaged)?;
            }
        }
        frames = rest;
    }
    if events.next().is_some() || !rows.next().await?.is_empty() {
        return Err(damaged(DamagedObject(
            "the run has more rows than it has lines".into(),
        )));
    }
    let length = place.length(object).await?;
    if length <= index.data_bytes() {
        return Err(damaged(DamagedObject(format!(
            "it is cut short after {length} bytes"
        ))));
    }
    let end = place.range(object, index.data_bytes()..length).await?;
    index.check_end(&end).map_err(damaged)?;
    Ok(length)
}

fn compare_line(event: &Event, line: &Bytes, expected: &mut Vec<u8>) -> Result<(), DamagedObject> {
    expected.clear();
    with_envelope(expected, event);
    if expected == line {
        Ok(())
    } else {
        Err(DamagedObject(format!(
            "its line for event {} is another",
            event.id
        )))
    }
}
