//! The Parquet schemas of runs and events, and which field goes into which column.

use runcast_common::protocol::event::Kind;

use crate::parquet_file::Cell;
use runcast_store::export::{EventRecord, RunRecord};

/// One row for each run; the order of the fields is that of [`run_cells`].
pub(crate) const RUN_SCHEMA: &str = "message run {
    required binary run_id (STRING);
    required binary name (STRING);
    required binary labels (JSON);
    required binary status (STRING);
    required binary variations (JSON);
    required binary created_by (STRING);
    required int64 created_at (TIMESTAMP(MICROS,true));
    optional int64 started_at (TIMESTAMP(MICROS,true));
    optional int64 ended_at (TIMESTAMP(MICROS,true));
    required boolean sealed;
    required int64 events;
    required int64 bytes;
}";

/// One row for each event; the order of the fields is that of [`event_cells`].
pub(crate) const EVENT_SCHEMA: &str = "message event {
    required binary run_id (STRING);
    required int64 epoch;
    required int64 seq;
    required binary producer (STRING);
    required int64 producer_seq;
    required binary kind (STRING);
    required int32 variation;
    optional binary level (STRING);
    required int64 time (TIMESTAMP(MICROS,true));
    required int64 appended_at (TIMESTAMP(MICROS,true));
    required binary line;
}";

/// The column of [`EVENT_SCHEMA`] whose values hardly ever repeat.
pub(crate) const EVENT_LINE_COLUMN: &str = "line";

pub(crate) fn run_cells(run: RunRecord) -> [Cell; 12] {
    [
        run.id.to_string().into(),
        run.name.into(),
        run.labels.into(),
        run.status.into(),
        run.variations.into(),
        run.created_by.into(),
        run.created_at.into(),
        run.started_at.into(),
        run.ended_at.into(),
        Cell::Bool(run.sealed),
        Cell::Long(run.events),
        Cell::Long(run.bytes),
    ]
}

pub(crate) fn event_cells(event: EventRecord) -> [Cell; 11] {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.number() == event.kind);
    // A later version's kind has no name here: export its number.
    let kind = kind.map_or_else(|| event.kind.to_string(), |kind| kind.name().to_owned());
    [
        event.run_id.to_string().into(),
        Cell::Long(event.epoch),
        Cell::Long(event.seq),
        event.producer.to_string().into(),
        Cell::Long(event.producer_seq),
        kind.into(),
        Cell::Int(event.variation.into()),
        event.level.into(),
        event.time.into(),
        event.appended_at.into(),
        Cell::Bytes(event.body),
    ]
}
