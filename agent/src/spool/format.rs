//! The bytes of a spool segment: a header, then records, each a whole batch. Pure: no files here.
//!
//! ```text
//! segment  magic "RUNCSPL1" | crc | version | run | producer | epoch | first | bytes | checksum | variation
//! record   magic | crc | length | count | first | bytes | checksum before | after | producer | body
//! ```
//!
//! Numbers are little endian. `crc` is the CRC-32C of the rest of its header. `first`, `bytes` and
//! `checksum` are the producer's [`Seal`] over everything before: `first - 1` events, their bytes,
//! their checksum. The body is checked by continuing `checksum before` over it, which must give
//! `after`: one pass serves the record and the seal. So every header that can be read tells exactly
//! how many events and bytes lie between it and the last good record, whatever became of them.
//!
//! Guarantee of [`scan`]: it never panics, never gives a record whose bytes changed, and goes on
//! behind damage at the next header that can be read. A header cannot be found inside a body by
//! mistake: bodies are JSON text, in which no zero byte occurs, and every header holds some.

use runcast_common::protocol::seal::{Checksum, Seal};
use uuid::Uuid;

/// Starts a segment; the last character is the format's version for a person who looks at it.
const SEGMENT_MAGIC: [u8; 8] = *b"RUNCSPL1";

/// The version that this program writes and reads.
const VERSION: u32 = 1;

/// Starts a record.
const RECORD_MAGIC: [u8; 4] = [0x89, b'R', b'S', b'\n'];

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 80;

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 56;

/// What a segment belongs to, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) run: Uuid,
    pub(crate) variation: u16,
    pub(crate) producer: Uuid,
    pub(crate) epoch: u64,
    /// Over everything before the segment; its `events` is the seq before the first one here.
    pub(crate) before: Seal,
}

/// What stands in front of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) producer: Uuid,
    /// Bytes of the body.
    pub(crate) length: u32,
    /// Number of its events.
    pub(crate) count: u32,
    /// Over everything before the record.
    pub(crate) before: Seal,
    /// Checksum over everything up to and with it.
    pub(crate) after: Checksum,
}

impl SegmentHeader {
    /// As bytes.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.run.as_bytes());
        bytes[32..48].copy_from_slice(self.producer.as_bytes());
        bytes[48..56].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[56..64].copy_from_slice(&(self.before.events + 1).to_le_bytes());
        bytes[64..72].copy_from_slice(&self.before.bytes.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.before.checksum.0.to_le_bytes());
        bytes[76..78].copy_from_slice(&self.variation.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Read from the start of a segment, if that is whole and of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER)?;
        let whole = bytes.starts_with(&SEGMENT_MAGIC)
            && u32_at(bytes, 8)? == crc32c::crc32c(&bytes[12..])
            && u32_at(bytes, 12)? == VERSION;
        if !whole {
            return None;
        }
        Some(Self {
            run: uuid_at(bytes, 16)?,
            producer: uuid_at(bytes, 32)?,
            epoch: u64_at(bytes, 48)?,
            before: Seal {
                events: u64_at(bytes, 56)?.checked_sub(1)?,
                bytes: u64_at(bytes, 64)?,
                checksum: Checksum(u32_at(bytes, 72)?),
            },
            variation: u16::from_le_bytes([bytes[76], bytes[77]]),
        })
    }
}

impl RecordHeader {
    /// As bytes.
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.before.events + 1).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.before.bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.before.checksum.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.after.0.to_le_bytes());
        bytes[40..56].copy_from_slice(self.producer.as_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Read from the start of a record, if its header is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let whole =
            bytes.starts_with(&RECORD_MAGIC) && u32_at(bytes, 4)? == crc32c::crc32c(&bytes[8..]);
        let header = Self {
            length: u32_at(bytes, 8)?,
            count: u32_at(bytes, 12)?,
            before: Seal {
                events: u64_at(bytes, 16)?.checked_sub(1)?,
                bytes: u64_at(bytes, 24)?,
                checksum: Checksum(u32_at(bytes, 32)?),
            },
            after: Checksum(u32_at(bytes, 36)?),
            producer: uuid_at(bytes, 40)?,
        };
        (whole && header.count > 0 && header.length >= header.count).then_some(header)
    }

    /// True if these are the bytes that were written.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize
            && crc32c::crc32c_append(self.before.checksum.0, body) == self.after.0
    }

    /// The seal up to and with this record.
    pub(crate) fn seal(&self) -> Seal {
        Seal {
            events: self.before.events + u64::from(self.count),
            bytes: self.before.bytes + u64::from(self.length - self.count),
            checksum: self.after,
        }
    }
}

/// One record that [`scan`] came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Where its header starts.
    pub(crate) at: usize,
    pub(crate) header: RecordHeader,
    /// False if only the header can be read.
    pub(crate) whole: bool,
}

/// What stands in a segment.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) records: Vec<Seen>,
    /// Bytes behind the last whole record: a torn write, or damage.
    pub(crate) tail: usize,
}

/// Reads a whole segment.
pub(crate) fn scan(bytes: &[u8]) -> Scan {
    let header = SegmentHeader::decode(bytes);
    let magic = memchr::memmem::Finder::new(&RECORD_MAGIC);
    let mut at = if header.is_some() { SEGMENT_HEADER } else { 0 };
    let mut whole_up_to = at;
    let mut records = Vec::new();
    while let Some(skip) = bytes.get(at..).and_then(|rest| magic.find(rest)) {
        at += skip;
        let Some(header) = RecordHeader::decode(&bytes[at..]) else {
            at += 1;
            continue;
        };
        let body = at + RECORD_HEADER;
        let end = body.saturating_add(header.length as usize);
        let whole = bytes.get(body..end).is_some_and(|body| header.fits(body));
        records.push(Seen { at, header, whole });
        at = if whole { end } else { body };
        if whole {
            whole_up_to = end;
        }
    }
    Scan {
        header,
        records,
        tail: bytes.len().saturating_sub(whole_up_to),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    array(bytes, at).map(Uuid::from_bytes)
}
