//! The format of an archive object, and nothing else: no object store, no Postgres.
//!
//! ```text
//! zstd frame | zstd frame | ... | skippable frame: index as JSON, its CRC-32C, its length, magic
//! ```
//!
//! Each zstd frame holds about [`FRAME_BYTES`] of NDJSON, one event per line exactly as the API
//! sends it, and decompresses by itself. So a page of history needs one range of the object.
//! `zstdcat` prints the run, since it skips the last frame. A reader that has only the object finds
//! the index from its end.
//!
//! The index takes about 200 bytes per frame, 1/5000 of the data.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::Head;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::Seal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zstd::bulk::Compressor;

use crate::envelope::with_envelope;

/// Uncompressed bytes after which a frame is closed.
pub const FRAME_BYTES: usize = 1024 * 1024;

/// Uncompressed bytes of a frame at most: [`FRAME_BYTES`] and one longest event with its envelope.
const MAX_FRAME_BYTES: usize = FRAME_BYTES + 512 * 1024;

/// The level at which zstd still compresses log text at 200 MB/s and more.
const ZSTD_LEVEL: i32 = 3;

/// The version of this format.
const FORMAT_VERSION: u32 = 1;

/// The first of the sixteen magic numbers of skippable frames.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// The last bytes of every object.
const FOOTER_MAGIC: &[u8; 8] = b"RUNCAST1";

/// CRC and length of the index, and the magic bytes.
const FOOTER_BYTES: usize = 4 + 4 + FOOTER_MAGIC.len();

/// The index: what an object holds, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectIndex {
    /// The format version.
    pub version: u32,
    /// The run.
    pub run: Uuid,
    /// The object holds the events after this id ...
    pub after: EventId,
    /// ... up to and including this one.
    pub upto: EventId,
    /// The number of its events.
    pub events: u64,
    /// Bytes of their lines, without envelopes and newlines.
    pub line_bytes: u64,
    /// Uncompressed bytes of all frames.
    pub raw_bytes: u64,
    /// Count, bytes and checksum of what each producer has published up to the end of this object.
    pub seals: BTreeMap<Uuid, Seal>,
    /// Gaps that Runcast itself reported up to the end of this object. They belong to no producer.
    pub notes: u64,
    /// The frames, in order and without a hole between them.
    pub frames: Vec<Frame>,
}

/// One frame of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its first event ...
    pub first: EventId,
    /// ... and its last.
    pub last: EventId,
    /// The number of its first line in the object, from 1.
    pub line: u64,
    /// The number of its lines.
    pub lines: u64,
    /// The smallest and the largest time of its events by their producers' clocks, Unix
    /// milliseconds.
    pub times: [u64; 2],
    /// A bit for each [`Kind`](runcast_common::protocol::event::Kind) that occurs, by its number.
    pub kinds: u16,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its compressed bytes.
    pub length: u64,
    /// Its uncompressed bytes.
    pub raw: u64,
    /// CRC-32C of its compressed bytes.
    pub crc32c: u32,
}

/// An object, or a part of it, differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedObject(pub String);

/// Builds an object: events go in, bytes come out. Memory: one frame and the index.
pub struct ObjectBuilder {
    index: ObjectIndex,
    compressor: Compressor<'static>,
    raw: Vec<u8>,
    open_frame: Option<Frame>,
    written_bytes: u64,
}

impl std::fmt::Debug for ObjectBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectBuilder")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl ObjectBuilder {
    /// An object of a run that begins after `after`. `before` is the index of the object that ends
    /// there.
    pub fn new(run: Uuid, after: EventId, before: Option<&ObjectIndex>) -> io::Result<Self> {
        let mut compressor = Compressor::new(ZSTD_LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Self {
            index: ObjectIndex {
                version: FORMAT_VERSION,
                run,
                after,
                upto: after,
                events: 0,
                line_bytes: 0,
                raw_bytes: 0,
                seals: before
                    .map(|before| before.seals.clone())
                    .unwrap_or_default(),
                notes: before.map_or(0, |before| before.notes),
                frames: Vec::new(),
            },
            compressor,
            raw: Vec::new(),
            open_frame: None,
            written_bytes: 0,
        })
    }

    /// Adds the next event. A frame that is full with it is appended to `out`.
    pub fn add(&mut self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        let (kind, time) = match Head::parse(&event.line) {
            Ok(head) => (head.kind.number(), head.time),
            // Never stored, since the persister checks each line; kept as a gap nevertheless.
            Err(_unreadable) => (runcast_common::protocol::event::Kind::Gap.number(), 0),
        };
        let frame = self.open_frame.get_or_insert(Frame {
            first: event.id,
            last: event.id,
            line: self.index.events + 1,
            lines: 0,
            times: [time, time],
            kinds: 0,
            offset: self.written_bytes,
            length: 0,
            raw: 0,
            crc32c: 0,
        });
        frame.last = event.id;
        frame.lines += 1;
        frame.times = [frame.times[0].min(time), frame.times[1].max(time)];
        frame.kinds |= 1 << kind;
        with_envelope(&mut self.raw, event);
        self.raw.push(b'\n');
        self.index.upto = event.id;
        self.index.events += 1;
        self.index.line_bytes += event.line.len() as u64;
        if event.producer.is_nil() {
            self.index.notes += 1;
        } else {
            self.index
                .seals
                .entry(event.producer)
                .or_default()
                .add(&event.line);
        }
        if self.raw.len() >= FRAME_BYTES {
            self.close_frame(out)?;
        }
        Ok(())
    }

    /// Writes the last frame and the index. The index covers ids up to `upto`, whatever the last
    /// event is.
    ///
    /// # Errors
    /// If zstd fails, or the index exceeds what a skippable frame can hold: some petabytes of run.
    pub fn finish(mut self, upto: EventId, out: &mut Vec<u8>) -> io::Result<ObjectIndex> {
        self.close_frame(out)?;
        self.index.upto = upto;
        let index = self.index.to_json()?;
        let too_large = |_| io::Error::other("the index of an object is over 4 GiB");
        let length = u32::try_from(index.len()).map_err(too_large)?;
        let payload = u32::try_from(index.len() + FOOTER_BYTES).map_err(too_large)?;
        out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        out.extend_from_slice(&payload.to_le_bytes());
        out.extend_from_slice(&index);
        out.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(FOOTER_MAGIC);
        Ok(self.index)
    }

    fn close_frame(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(mut frame) = self.open_frame.take() else {
            return Ok(());
        };
        let compressed = self.compressor.compress(&self.raw)?;
        frame.length = compressed.len() as u64;
        frame.raw = self.raw.len() as u64;
        frame.crc32c = crc32c::crc32c(&compressed);
        self.written_bytes += frame.length;
        self.index.raw_bytes += frame.raw;
        self.index.frames.push(frame);
        self.raw.clear();
        out.extend_from_slice(&compressed);
        Ok(())
    }
}

impl ObjectIndex {
    /// The index as it is written into the object and into Postgres.
    pub fn to_json(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::other)
    }

    /// Parses an index; one of another version counts as damaged.
    pub fn from_json(json: &[u8]) -> Result<Self, DamagedObject> {
        let index: Self = serde_json::from_slice(json)
            .map_err(|error| DamagedObject(format!("its index cannot be read: {error}")))?;
        if index.version == FORMAT_VERSION {
            Ok(index)
        } else {
            Err(DamagedObject(format!(
                "its index has version {}, not {FORMAT_VERSION}",
                index.version
            )))
        }
    }

    /// Bytes of the data frames. The index begins there.
    pub fn data_bytes(&self) -> u64 {
        self.frames
            .last()
            .map_or(0, |frame| frame.offset + frame.length)
    }

    /// Checks that the end of an object, from [`ObjectIndex::data_bytes`] on, holds this very
    /// index.
    pub fn check_end(&self, end: &[u8]) -> Result<(), DamagedObject> {
        if index_at_end(end)? == *self {
            Ok(())
        } else {
            Err(DamagedObject("the index at its end differs".into()))
        }
    }

    /// Bytes that it occupies in memory, about.
    pub fn memory_bytes(&self) -> usize {
        let seals = self.seals.len() * size_of::<(Uuid, Seal)>();
        self.frames.len() * size_of::<Frame>() + seals + size_of::<Self>()
    }
}

/// Reads the index from the end of an object.
pub fn index_at_end(end: &[u8]) -> Result<ObjectIndex, DamagedObject> {
    let damage = |what: &str| DamagedObject(what.to_owned());
    let footer = end.len().checked_sub(FOOTER_BYTES).map(|at| &end[at..]);
    let footer = footer.filter(|footer| footer.ends_with(FOOTER_MAGIC));
    let footer = footer.ok_or_else(|| damage("it is cut short, or is not an archive object"))?;
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&footer[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    let (crc, length) = (number(0), number(4) as usize);
    let until = end.len() - FOOTER_BYTES;
    let from = until.checked_sub(length);
    let json = from.map(|from| &end[from..until]);
    let json = json.ok_or_else(|| damage("its index is longer than what was read"))?;
    if crc32c::crc32c(json) != crc {
        return Err(damage("the checksum of its index is wrong"));
    }
    ObjectIndex::from_json(json)
}

/// Checks and decompresses a frame. Allocates no more than a frame may hold, whatever the index
/// says.
pub fn decompress_frame(frame: &Frame, stored: &[u8]) -> Result<Bytes, DamagedObject> {
    let at = frame.offset;
    if stored.len() as u64 != frame.length {
        let (is, should) = (stored.len(), frame.length);
        return Err(DamagedObject(format!(
            "the frame at byte {at} has {is} bytes instead of {should}"
        )));
    }
    if crc32c::crc32c(stored) != frame.crc32c {
        return Err(DamagedObject(format!(
            "the checksum of the frame at byte {at} is wrong"
        )));
    }
    let raw = usize::try_from(frame.raw)
        .ok()
        .filter(|raw| *raw <= MAX_FRAME_BYTES);
    let raw = raw.ok_or_else(|| DamagedObject(format!("the frame at byte {at} is too large")))?;
    let lines = zstd::bulk::decompress(stored, raw).map_err(|error| {
        DamagedObject(format!(
            "the frame at byte {at} cannot be decompressed: {error}"
        ))
    })?;
    if lines.len() == raw && lines.ends_with(b"\n") {
        Ok(lines.into())
    } else {
        Err(DamagedObject(format!(
            "the frame at byte {at} does not hold what its index says"
        )))
    }
}

/// The lines of a decompressed frame, without their newlines.
pub fn lines(raw: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = 0;
    memchr::memchr_iter(b'\n', raw).map(move |end| {
        let line = raw.slice(at..end);
        at = end + 1;
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::without_envelope;

    const RUN_ID: Uuid = Uuid::from_u128(1);

    fn events(count: u64) -> Vec<Event> {
        let event = |seq: u64| Event {
            id: EventId::new(9, seq * 2),
            producer: Uuid::from_u128(u128::from(seq % 2 + 5)),
            producer_seq: seq,
            line: format!(
                r#"{{"kind":"output","variation":0,"time":{},"text":"{}"}}"#,
                1000 + seq,
                "x".repeat(usize::try_from(seq % 5000).expect("small"))
            )
            .into(),
        };
        (1..=count).map(event).collect()
    }

    fn build(events: &[Event]) -> (ObjectIndex, Vec<u8>) {
        let mut builder = ObjectBuilder::new(RUN_ID, EventId::ZERO, None).expect("a builder");
        let mut out = Vec::new();
        for event in events {
            builder.add(event, &mut out).expect("added");
        }
        let last = events.last().map_or(EventId::ZERO, |event| event.id);
        (builder.finish(last, &mut out).expect("an index"), out)
    }

    #[test]
    fn every_frame_gives_back_its_events() {
        let events = events(2_000);
        let (index, object) = build(&events);
        assert!(index.frames.len() > 1, "several frames");
        assert_eq!(index.events, 2_000);
        let (mut read, mut line) = (Vec::new(), 1);
        for frame in &index.frames {
            let from = usize::try_from(frame.offset).expect("small");
            let until = from + usize::try_from(frame.length).expect("small");
            let raw = decompress_frame(frame, &object[from..until]).expect("unpacked");
            assert_eq!(frame.line, line);
            line += frame.lines;
            let of_frame: Vec<_> = lines(&raw)
                .map(|line| without_envelope(&line).expect("an event"))
                .collect();
            assert_eq!(of_frame.len() as u64, frame.lines);
            assert_eq!((of_frame[0].id, frame.kinds), (frame.first, 1));
            read.extend(of_frame);
        }
        assert_eq!(read, events);
        let end = usize::try_from(index.data_bytes()).expect("small");
        index
            .check_end(&object[end..])
            .expect("the index at the end");
        assert_eq!(index_at_end(&object).expect("found from the end"), index);
        let seal = index.seals[&Uuid::from_u128(5)];
        assert_eq!(seal.events, 1_000);
    }

    #[test]
    fn other_programs_read_the_object_as_lines() {
        let (index, object) = build(&events(1_500));
        let text = zstd::stream::decode_all(&object[..]).expect("zstd passes over the index");
        assert_eq!(text.len() as u64, index.raw_bytes);
        assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1_500);
    }

    #[test]
    fn a_flipped_bit_and_a_missing_end_are_found() {
        let (index, object) = build(&events(50));
        let [frame] = index.frames[..] else {
            panic!("one frame")
        };
        let end = usize::try_from(frame.length).expect("small");
        for at in 0..end {
            let mut damaged = object[..end].to_vec();
            damaged[at] ^= 1;
            decompress_frame(&frame, &damaged).expect_err("a flipped bit");
        }
        decompress_frame(&frame, &object[..end - 1]).expect_err("cut short");
        for at in end + 8..object.len() {
            let mut damaged = object[end..].to_vec();
            damaged[at - end] ^= 1;
            index
                .check_end(&damaged)
                .expect_err("a flipped bit in the index");
        }
        index
            .check_end(&object[end..object.len() - 1])
            .expect_err("cut short");
        index_at_end(b"").expect_err("nothing");
    }
}
