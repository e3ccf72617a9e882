//! Writes the object of a run from its rows, and reads it back in full before any row may be
//! deleted.
//!
//! Two passes over the run's rows, page by page. The first compresses and uploads them. The second
//! reads the object from the store, decompresses it, and compares it with the rows line by line. So
//! any damage on the way to the store, within it, and on the way back is found. Memory: a page of
//! rows, a part, a frame, and the index.

use std::time::Duration;

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::format::{self, DamagedObject, ObjectBuilder, ObjectIndex};
use super::object_store::{ArchiveStore, ArchiveStoreError, object_name};
use super::reader::ArchiveReadError;
use super::upload::{PART_BYTES, Upload};
use crate::envelope::with_envelope;
use runcast_store::archives::{ArchiveAttempt, WrittenArchive};
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::runs::Coverage;
use runcast_store::{Store, StoreError};

/// The longest time for one run: some terabytes. An older attempt has failed.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(12 * 3600);

/// Why a run was not archived. Its rows stay where they are.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive store failed.
    #[error(transparent)]
    ArchiveStore(#[from] ArchiveStoreError),
    /// An object that is to be replaced cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveReadError),
    /// zstd failed.
    #[error("compression failed: {0}")]
    Compression(#[from] std::io::Error),
    /// What was read back differs from what was written.
    #[error("the object {object} was written and is damaged: {damage}")]
    Damaged {
        /// The name of the object.
        object: String,
        /// What is wrong with it.
        damage: DamagedObject,
    },
    /// The rows of the run do not agree with its counters. An operator has to look at it.
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
    #[error(
        "run {0} has changed, or another worker has begun to archive it; this attempt is dropped"
    )]
    Superseded(Uuid),
    /// The attempt took longer than [`ATTEMPT_DEADLINE`].
    #[error("run {0} could not be archived within {ATTEMPT_DEADLINE:?}; it will be tried again")]
    TimedOut(Uuid),
}

/// Writes the object of an attempt, reads it back and compares it. Returns its size and its index,
/// for [`Store::keep_archive`]. After an error, what was written is recorded in Postgres and will
/// be deleted.
pub async fn write_archive(
    store: &Store,
    archive_store: &ArchiveStore,
    attempt: &ArchiveAttempt,
) -> Result<(WrittenArchive, Vec<u8>), WriteError> {
    let object = object_name(attempt.run, attempt.id);
    let index = write_object(store, archive_store, attempt, &object).await?;
    check_rows(attempt, &index)?;
    if !store.note_written(attempt.id).await? {
        return Err(WriteError::Superseded(attempt.run));
    }
    let stored_bytes = compare_object(store, archive_store, attempt, &object, &index).await?;
    let written = WrittenArchive {
        events: index.events,
        line_bytes: index.line_bytes,
        raw_bytes: index.raw_bytes,
        stored_bytes,
    };
    Ok((written, index.to_json()?))
}

/// The rows of an attempt, page by page.
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
                redaction_revision: 0,
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

const fn rows_of<'a>(store: &'a Store, attempt: &'a ArchiveAttempt) -> Rows<'a> {
    Rows {
        store,
        attempt,
        from: attempt.after,
    }
}

async fn write_object(
    store: &Store,
    archive_store: &ArchiveStore,
    attempt: &ArchiveAttempt,
    object: &str,
) -> Result<ObjectIndex, WriteError> {
    // A second object of a run continues the counts of the first.
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
    let mut upload = Upload::new(archive_store, object);
    let mut rows = rows_of(store, attempt);
    loop {
        let events = rows.next().await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            builder.add(event, upload.buffer())?;
        }
        send_full_parts(store, attempt.id, attempt.run, &mut upload).await?;
    }
    let index = builder.finish(attempt.upto, upload.buffer())?;
    upload.finish().await?;
    Ok(index)
}

/// Sends what is enough for a part. The id of an upload in parts is recorded before its first part,
/// for cleaning up.
pub(super) async fn send_full_parts(
    store: &Store,
    attempt: Uuid,
    run: Uuid,
    upload: &mut Upload<'_>,
) -> Result<(), WriteError> {
    while upload.is_full() {
        if let Some(id) = upload.begin().await?
            && !store.note_upload(attempt, &id).await?
        {
            return Err(WriteError::Superseded(run));
        }
        upload.send().await?;
    }
    Ok(())
}

/// Compares the sums of the rows with the run's counters and seals.
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
    // A line that was no event is part of its producer's seal, and a gap stands in its place. A
    // redacted line has another checksum.
    if index.notes > 0 || attempt.is_redacted {
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

/// Reads an object back and compares it with the rows. Returns its length.
async fn compare_object(
    store: &Store,
    archive_store: &ArchiveStore,
    attempt: &ArchiveAttempt,
    object: &str,
    index: &ObjectIndex,
) -> Result<u64, WriteError> {
    let damaged = |damage| WriteError::Damaged {
        object: object.to_owned(),
        damage,
    };
    let mut rows = rows_of(store, attempt);
    let mut events = Vec::new().into_iter();
    let mut expected = Vec::new();
    let mut frames = &index.frames[..];
    while let Some(first) = frames.first() {
        // One request for as many frames as fit a part, at least one.
        let limit = first.offset + PART_BYTES as u64;
        let count = frames
            .partition_point(|frame| frame.offset + frame.length <= limit)
            .max(1);
        let (batch, rest) = frames.split_at(count);
        let end = batch.last().map_or(0, |frame| frame.offset + frame.length);
        let stored = archive_store.get_range(object, first.offset..end).await?;
        for frame in batch {
            let at = |offset: u64| {
                usize::try_from(offset - first.offset)
                    .unwrap_or(usize::MAX)
                    .min(stored.len())
            };
            let raw = format::decompress_frame(
                frame,
                &stored[at(frame.offset)..at(frame.offset + frame.length)],
            );
            // Line by line, with pages of rows as they are needed.
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
    // Nothing may be left over on either side, and the index must be the one that was written.
    if events.next().is_some() || !rows.next().await?.is_empty() {
        return Err(damaged(DamagedObject(
            "the run has more rows than it has lines".into(),
        )));
    }
    let length = archive_store.length(object).await?;
    if length <= index.data_bytes() {
        return Err(damaged(DamagedObject(format!(
            "it is cut short after {length} bytes"
        ))));
    }
    let end = archive_store
        .get_range(object, index.data_bytes()..length)
        .await?;
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
            "its line for event {} differs from the row",
            event.id
        )))
    }
}
