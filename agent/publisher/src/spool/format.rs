//! The bytes of a spool segment: a header, then records, each with a whole batch. No file access
//! here.
//!
//! ```text
//! segment  magic "RUNCSPL1" | crc | version | run | producer | epoch
//!          | first | bytes | checksum | variation
//! record   magic | crc | length | count
//!          | first | bytes | checksum before | after | producer | body
//! ```
//!
//! Numbers are little endian. `crc` is the CRC-32C of the rest of its header. `first`, `bytes` and
//! `checksum` are the producer's [`Seal`] over everything before: `first - 1` events, their bytes
//! and their checksum. To verify a body, `checksum before` is continued over it and must give
//! `after`: one pass serves the record and the seal. So every readable header says exactly how many
//! events and bytes lie between it and the last good record, whatever happened to them.
//!
//! [`scan`] never panics, never returns a record whose bytes changed, and continues behind damage
//! at the next readable header. It cannot mistake part of a body for a header: bodies are JSON text
//! and contain no zero byte, while every header does.

use runcast_common::protocol::seal::{Checksum, Seal};
use uuid::Uuid;

/// Starts a segment; its last character shows the version to a person who looks at the file.
const SEGMENT_MAGIC: [u8; 8] = *b"RUNCSPL1";

/// The format version that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// Starts a record.
const RECORD_MAGIC: [u8; 4] = [0x89, b'R', b'S', b'\n'];

/// Size of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 80;

/// Size of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 56;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) run: Uuid,
    pub(super) variation: u16,
    pub(super) producer: Uuid,
    pub(super) epoch: u64,
    /// The seal over everything before the segment; its `events` is the seq before the first one
    /// here.
    pub(super) before: Seal,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) producer: Uuid,
    /// Bytes of the body.
    pub(super) length: u32,
    /// Events in the body.
    pub(super) count: u32,
    /// The seal over everything before the record.
    pub(super) before: Seal,
    /// The checksum over everything up to and including the record.
    pub(super) after: Checksum,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[12..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
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

    /// Reads the header at the start of a segment; none if it is damaged or of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let whole = bytes.starts_with(&SEGMENT_MAGIC)
            && u32_at(bytes, 8)? == crc32c::crc32c(&bytes[12..])
            && u32_at(bytes, 12)? == FORMAT_VERSION;
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
    pub(super) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
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

    /// Reads the header at the start of a record; none if it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
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

    /// Whether these are the bytes that were written.
    pub(super) fn matches_body(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize
            && crc32c::crc32c_append(self.before.checksum.0, body) == self.after.0
    }

    /// The seal up to and including this record.
    pub(super) fn seal(&self) -> Seal {
        Seal {
            events: self.before.events + u64::from(self.count),
            bytes: self.before.bytes + u64::from(self.length - self.count),
            checksum: self.after,
        }
    }
}

/// A record that [`scan`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScannedRecord {
    /// Offset of its header.
    pub(super) offset: usize,
    pub(super) header: RecordHeader,
    /// False if only the header can be read.
    pub(super) is_whole: bool,
}

/// The contents of a segment.
#[derive(Debug)]
pub(super) struct SegmentScan {
    pub(super) header: Option<SegmentHeader>,
    pub(super) records: Vec<ScannedRecord>,
    /// Bytes behind the last whole record: a torn write, or damage.
    pub(super) tail_bytes: usize,
}

/// Reads a whole segment.
pub(super) fn scan(bytes: &[u8]) -> SegmentScan {
    let header = SegmentHeader::decode(bytes);
    let magic = memchr::memmem::Finder::new(&RECORD_MAGIC);
    let mut at = if header.is_some() {
        SEGMENT_HEADER_BYTES
    } else {
        0
    };
    let mut whole_up_to = at;
    let mut records = Vec::new();
    while let Some(skip) = bytes.get(at..).and_then(|rest| magic.find(rest)) {
        at += skip;
        let Some(header) = RecordHeader::decode(&bytes[at..]) else {
            at += 1;
            continue;
        };
        let body = at + RECORD_HEADER_BYTES;
        let end = body.saturating_add(header.length as usize);
        let is_whole = bytes
            .get(body..end)
            .is_some_and(|body| header.matches_body(body));
        records.push(ScannedRecord {
            offset: at,
            header,
            is_whole,
        });
        at = if is_whole { end } else { body };
        if is_whole {
            whole_up_to = end;
        }
    }
    SegmentScan {
        header,
        records,
        tail_bytes: bytes.len().saturating_sub(whole_up_to),
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
