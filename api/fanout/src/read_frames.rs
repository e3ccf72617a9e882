//! Reads a run into frames: the reader of `runcast-history`, with an encoder as its sink.

use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use runcast_history::filter::Filter;
use runcast_history::reader::{ReadError, ReadLimit, ReadStatus, Reader, Sink};
use uuid::Uuid;

use crate::frame::{Encoder, Frames};

/// The result of one read.
#[derive(Debug)]
pub struct ReadBatch {
    /// Frames after the cursor; none if the reader has caught up.
    pub frames: Frames,
    /// How the read ended.
    pub status: ReadStatus,
}

/// Reads the events of all channels after `cursor`.
pub async fn read_frames(
    reader: &Reader,
    run: Uuid,
    cursor: EventId,
    limit: ReadLimit,
) -> Result<ReadBatch, ReadError> {
    let mut encoder = Encoder::new(cursor);
    let status = reader
        .read(run, &Filter::default(), limit, &mut encoder)
        .await?;
    Ok(ReadBatch {
        frames: encoder.finish(),
        status,
    })
}

impl Sink for Encoder {
    fn upto(&self) -> EventId {
        self.upto()
    }

    fn event(&mut self, event: &Event) {
        self.event(event);
    }

    fn gap(&mut self, at: EventId, next: EventId, count: Option<u64>, reason: &'static str) {
        self.gap(at, next, count, reason);
    }

    fn skip_to(&mut self, id: EventId) {
        self.skip_to(id);
    }
}
