//! What an object of the archive is made of, and nothing else: no place, no Postgres.
//!
//! ```text
//! zstd frame | zstd frame | ... | skippable frame: index as JSON, its CRC-32C, its length, MARK
//! ```
//!
//! Each zstd frame holds about [`FRAME_BYTES`] of NDJSON, one event a line exactly as the API shows it, and
//! unpacks by itself: a page of history needs one range of the object. `zstdcat` prints the run, since it
//! passes over the skippable frame; a reader who has nothing but the object finds the index from its end.
//!
//! The index takes some 200 bytes a frame, a five-thousandth of what it is about.

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

/// Raw bytes after which a frame is closed.
pub const FRAME_BYTES: usize = 1024 * 1024;

/// Most raw bytes of a frame: one longest event more, with its envelope.
const MAX_FRAME_BYTES: usize = FRAME_BYTES + 512 * 1024;

/// The level at which zstd still packs log text at 200 MB/s and more.
const LEVEL: i32 = 3;

/// Version of this layout.
const VERSION: u32 = 1;

/// The first of the sixteen magic numbers of skippable frames.
const SKIPPABLE: u32 = 0x184D_2A50;

/// The last bytes of every object.
const MARK: &[u8; 8] = b"RUNCAST1";

/// CRC and length of the index, and the mark.
const FOOTER_BYTES: usize = 4 + 4 + MARK.len();

/// What an object holds, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectIndex {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run: Uuid,
    /// The object holds the events behind this id ...
    pub after: EventId,
    /// ... up to and with this one.
    pub upto: EventId,
    /// How many there are.
    pub events: u64,
    /// Bytes of their lines, without envelopes and newlines.
    pub line_bytes: u64,
    /// Bytes of all frames, unpacked.
    pub raw_bytes: u64,
    /// Count, bytes and checksum of what each producer has published, up to the end of this object.
    pub seals: BTreeMap<Uuid, Seal>,
    /// Runcast's own notes about holes, which belong to no producer, up to the end of this object.
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
    /// Number of its first line in the object, from 1.
    pub line: u64,
    /// How many lines it has.
    pub lines: u64,
    /// Smallest and largest time of its events by their producers' clocks, Unix milliseconds.
    pub times: [u64; 2],
    /// One bit for each [`Kind`](runcast_common::event::Kind) that occurs, by its number.
    pub kinds: u16,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its bytes there.
    pub length: u64,
    /// Its bytes, unpacked.
    pub raw: u64,
    /// CRC-32C of its bytes as they are stored.
    pub crc32c: u32,
}

/// An object, or a part of it, that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedObject(pub String);

/// Builds an object: events go in, bytes come out, and what is kept meanwhile is one frame and the index.
pub struct ObjectBuilder {
    index: ObjectIndex,
    compressor: Compressor<'static>,
    raw: Vec<u8>,
    open: Option<Frame>,
    written: u64,
}

impl std::fmt::Debug for ObjectBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl ObjectBuilder {
    /// An object of a run that begins behind `after`; `before` is the index of the object that ends there.
    ///
    /// # Errors
    /// If zstd gets no memory.
    pub fn new(run: Uuid, after: EventId, before: Option<&ObjectIndex>) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Self {
            index: ObjectIndex {
                version: VERSION,
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
            open: None,
            written: 0,
        })
    }

    /// Adds the next event; a frame that is full with it goes to the end of `out`.
    ///
    /// # Errors
    /// If zstd fails.
    pub fn add(&mut self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        let (kind, time) = match Head::parse(&event.line) {
            Ok(head) => (head.kind.number(), head.time),
            // Never stored, since the persister checks each line; shown as a gap all the same.
            Err(_unreadable) => (runcast_common::protocol::event::Kind::Gap.number(), 0),
        };
        let frame = self.open.get_or_insert(Frame {
            first: event.id,
            last: event.id,
            line: self.index.events + 1,
            lines: 0,
            times: [time, time],
            kinds: 0,
            offset: self.written,
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

    /// Writes the last frame and the index, which reaches up to `upto` whatever the last event is.
    ///
    /// # Errors
    /// If zstd fails, or the index is beyond what a skippable frame can hold: some petabytes of run.
    pub fn finish(mut self, upto: EventId, out: &mut Vec<u8>) -> io::Result<ObjectIndex> {
        self.close_frame(out)?;
        self.index.upto = upto;
        let index = self.index.to_json()?;
        let too_large = |_| io::Error::other("the index of an object is over 4 GiB");
        let length = u32::try_from(index.len()).map_err(too_large)?;
        let payload = u32::try_from(index.len() + FOOTER_BYTES).map_err(too_large)?;
        out.extend_from_slice(&SKIPPABLE.to_le_bytes());
        out.extend_from_slice(&payload.to_le_bytes());
        out.extend_from_slice(&index);
        out.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(MARK);
        Ok(self.index)
    }

    fn close_frame(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(mut frame) = self.open.take() else {
            return Ok(());
        };
        let packed = self.compressor.compress(&self.raw)?;
        frame.length = packed.len() as u64;
        frame.raw = self.raw.len() as u64;
        frame.crc32c = crc32c::crc32c(&packed);
        self.written += frame.length;
        self.index.raw_bytes += frame.raw;
        self.index.frames.push(frame);
        self.raw.clear();
        out.extend_from_slice(&packed);
        Ok(())
    }
}

impl ObjectIndex {
    /// The index as it stands in the object and in Postgres.
    ///
    /// # Errors
    /// None that could occur: numbers and texts can always be written.
    pub fn to_json(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::other)
    }

    /// Reads an index.
    ///
    /// # Errors
    /// [`DamagedObject`] if it is none, or one of a version that is not known here.
    pub fn from_json(json: &[u8]) -> Result<Self, DamagedObject> {
        let index: Self = serde_json::from_slice(json)
            .map_err(|error| DamagedObject(format!("its index cannot be read: {error}")))?;
        if index.version == VERSION {
            Ok(index)
        } else {
            Err(DamagedObject(format!(
                "its index has version {}, not {VERSION}",
                index.version
            )))
        }
    }

    /// Bytes of the data frames; the index begins there.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.frames
            .last()
            .map_or(0, |frame| frame.offset + frame.length)
    }

    /// Checks that the end of an object, from [`ObjectIndex::data_bytes`] on, holds this very index.
    ///
    /// # Errors
    /// [`DamagedObject`] says what is wrong.
    pub fn check_end(&self, end: &[u8]) -> Result<(), DamagedObject> {
        if embedded(end)? == *self {
            Ok(())
        } else {
            Err(DamagedObject("the index at its end is another".into()))
        }
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let seals = self.seals.len() * size_of::<(Uuid, Seal)>();
        self.frames.len() * size_of::<Frame>() + seals + size_of::<Self>()
    }
}

/// The index out of the end of an object.
///
/// # Errors
/// [`DamagedObject`] says what is wrong.
pub fn embedded(end: &[u8]) -> Result<ObjectIndex, DamagedObject> {
    let damage = |what: &str| DamagedObject(what.to_owned());
    let footer = end.len().checked_sub(FOOTER_BYTES).map(|at| &end[at..]);
    let footer = footer.filter(|footer| footer.ends_with(MARK));
    let footer = footer.ok_or_else(|| damage("it is cut short, or no object of an archive"))?;
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

/// Unpacks a frame and checks it.
///
/// # Errors
/// [`DamagedObject`] says what is wrong; no more than a frame may hold is ever allocated.
pub fn unpack(frame: &Frame, stored: &[u8]) -> Result<Bytes, DamagedObject> {
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
            "the frame at byte {at} cannot be unpacked: {error}"
        ))
    })?;
    if lines.len() == raw && lines.ends_with(b"\n") {
        Ok(lines.into())
    } else {
        Err(DamagedObject(format!(
            "the frame at byte {at} holds something else"
        )))
    }
}

/// The lines of an unpacked frame, without their newlines.
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

    const RUN: Uuid = Uuid::from_u128(1);

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
        let mut builder = ObjectBuilder::new(RUN, EventId::ZERO, None).expect("a builder");
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
            let raw = unpack(frame, &object[from..until]).expect("unpacked");
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
        assert_eq!(embedded(&object).expect("found from the end"), index);
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
            unpack(&frame, &damaged).expect_err("a flipped bit");
        }
        unpack(&frame, &object[..end - 1]).expect_err("cut short");
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
        embedded(b"").expect_err("nothing");
    }
}
