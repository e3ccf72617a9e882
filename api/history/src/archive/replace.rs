//! Writes an archived object once more, with some of its lines replaced by others of the same
//! length.
//!
//! The old object stays what readers get until the new one is read back whole: each frame is
//! compared with the checksum that was taken when it was made. Memory: a page of events, a part, a
//! frame, and the index.

use runcast_common::protocol::entry::Event;
use uuid::Uuid;

use super::format::{self, DamagedObject, ObjectBuilder, ObjectIndex};
use super::object_store::{ArchiveStore, object_name};
use super::reader::Archive;
use super::upload::Upload;
use super::writer::{WriteError, send_full_parts};
use runcast_store::Store;
use runcast_store::archives::{ArchiveObject, WrittenArchive};
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::runs::Coverage;

/// An object that was written in place of another one.
#[derive(Debug)]
pub struct Replacement {
    /// Its id.
    pub id: Uuid,
    /// Its sizes.
    pub written: WrittenArchive,
    /// Its index.
    pub index: Vec<u8>,
    /// How many lines were replaced.
    pub replaced: u64,
}

/// Writes an object with the lines that `mask` returns for its events. Returns none if it returns
/// none for each. After an error, what was written is recorded in Postgres and will be deleted.
pub async fn write_replacement(
    store: &Store,
    archive_store: &ArchiveStore,
    archive: &Archive,
    object: &ArchiveObject,
    mut mask: impl FnMut(&Event) -> Option<Vec<u8>>,
) -> Result<Option<Replacement>, WriteError> {
    let id = store.begin_replacement(object).await?;
    let name = object_name(object.run, id);
    let mut builder = ObjectBuilder::new(object.run, object.after, None)?;
    let mut upload = Upload::new(archive_store, &name);
    let (mut from, mut replaced) = (object.after, 0);
    loop {
        let mut events = archive.events_after(&page(object), from).await?;
        events.retain(|event| event.id <= object.upto);
        let Some(last) = events.last() else { break };
        from = last.id;
        for event in &mut events {
            if let Some(line) = mask(event) {
                event.line = line.into();
                replaced += 1;
            }
            builder.add(event, upload.buffer())?;
        }
        send_full_parts(store, id, object.run, &mut upload).await?;
    }
    if replaced == 0 {
        // The hourly job deletes what may have been sent.
        return Ok(None);
    }
    let index = builder.finish(object.upto, upload.buffer())?;
    upload.finish().await?;
    let stored_bytes = read_back(archive_store, &name, &index).await?;
    let written = WrittenArchive {
        events: index.events,
        line_bytes: index.line_bytes,
        raw_bytes: index.raw_bytes,
        stored_bytes,
    };
    Ok(Some(Replacement {
        id,
        written,
        index: index.to_json()?,
        replaced,
    }))
}

const fn page(object: &ArchiveObject) -> EventPage<'static> {
    EventPage {
        run: object.run,
        after: object.after,
        coverage: Coverage {
            watermark: object.upto,
            ended: true,
            archived: object.upto,
            redaction_revision: 0,
        },
        channels: &[],
        limit: PAGE_EVENTS,
    }
}

/// Reads all of an object and compares it with its index. Returns its length.
async fn read_back(
    archive_store: &ArchiveStore,
    name: &str,
    index: &ObjectIndex,
) -> Result<u64, WriteError> {
    let damaged = |damage: DamagedObject| WriteError::Damaged {
        object: name.to_owned(),
        damage,
    };
    for frame in &index.frames {
        let range = frame.offset..frame.offset + frame.length;
        let stored = archive_store.get_range(name, range).await?;
        format::decompress_frame(frame, &stored).map_err(damaged)?;
    }
    let length = archive_store.length(name).await?;
    let end = index.data_bytes();
    if length <= end {
        return Err(damaged(DamagedObject(format!(
            "it is cut short after {length} bytes"
        ))));
    }
    let end = archive_store.get_range(name, end..length).await?;
    index.check_end(&end).map_err(damaged)?;
    Ok(length)
}
