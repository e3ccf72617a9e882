//! What the segments of a folder contain together: whole batches in the order of their seqs, and
//! counted holes where something cannot be read.
//!
//! Every header contains the seal before it, so at each header it is known where the events should
//! stand. If they stand before that, what lies between is a hole. If they stand behind it, an older
//! process wrote on after its successor had started; those records are ignored, because the
//! successor has given their seqs to other events. What cannot be read at the very end has no seq
//! any more: it was not sent, or Redis has it. It becomes a [`LostEvents`], which the new process
//! publishes as a gap.
//!
//! Memory: one segment at a time, and a [`BatchRef`] per batch. No time limit: reading 256 MiB from
//! a disk takes seconds at worst.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use runcast_common::protocol::seal::Seal;
use uuid::Uuid;

use super::directory;
use super::format::{RecordHeader, SEGMENT_HEADER_BYTES, SegmentScan, scan};

/// Consecutive events of the producer, without their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRef {
    /// Seq of the first event.
    pub(crate) first: u64,
    /// Number of events.
    pub(crate) count: u64,
    pub(crate) location: RecordLocation,
}

impl BatchRef {
    /// Seq of the last event.
    pub(crate) const fn last(&self) -> u64 {
        self.first + self.count - 1
    }
}

/// Where the bytes of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordLocation {
    /// In a record of the segment with this number.
    Disk { segment: u32, offset: u32 },
    /// Only in memory.
    Memory,
    /// Nowhere: so many bytes of lines are lost.
    Hole { bytes: u64 },
}

/// A segment on disk.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    /// Seq before its first event. The segments before this one may be deleted once that seq is
    /// durable, and not earlier: between them and this one there may be events that no file holds.
    pub(super) before: u64,
    pub(super) bytes: u64,
}

/// Lost events that have no seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostEvents {
    /// How many, if that is known.
    pub(crate) count: Option<u64>,
    /// Bytes of their lines, or of what cannot be read.
    pub(crate) bytes: u64,
}

/// The contents of a folder.
#[derive(Debug, Default)]
pub(crate) struct RecoveredSpool {
    pub(super) producer: Option<Uuid>,
    /// The seal over everything that was ever published, as far as the folder shows it.
    pub(crate) seal: Seal,
    /// Dense seqs, oldest first; only events behind the last one known to be durable.
    pub(crate) batches: VecDeque<BatchRef>,
    pub(super) segments: VecDeque<Segment>,
    pub(crate) lost: Vec<LostEvents>,
    /// The unreadable end of what was read so far.
    tail: Option<LostEvents>,
}

impl RecoveredSpool {
    /// Reads all segments of a folder.
    pub(super) fn read(folder: &Path, run: Uuid, variation: u16) -> io::Result<Self> {
        let mut recovered = Self::default();
        let mut has_empty_file = false;
        for (number, path) in (0..).zip(directory::segments(folder)?) {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // Another process may delete durable segments at any time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            has_empty_file |= bytes.is_empty();
            let scanned = scan(&bytes);
            if let Some(header) = scanned.header
                && (header.run, header.variation) != (run, variation)
            {
                tracing::warn!(
                    path = %path.display(),
                    "a spool file belongs to another run and is ignored"
                );
                continue;
            }
            recovered.add_segment(number, path, &scanned, bytes.len(), has_empty_file);
        }
        recovered.lost.extend(recovered.tail.take());
        Ok(recovered)
    }

    fn add_segment(
        &mut self,
        number: u32,
        path: PathBuf,
        scanned: &SegmentScan,
        bytes: usize,
        has_empty_file: bool,
    ) {
        // 1. Where the segment starts.
        if let Some(header) = scanned.header {
            // If the oldest file is empty, only this header shows that it held events.
            if has_empty_file && self.producer.is_none() && header.before.events > 0 {
                self.note_tail(0);
            }
            self.advance_to(header.producer, header.before);
        } else if let Some(first) = scanned.records.first()
            && first.offset > SEGMENT_HEADER_BYTES
        {
            // How many events stood there is known once a header says where it stands.
            self.note_tail(first.offset - SEGMENT_HEADER_BYTES);
        }
        // 2. Its records.
        let before = self.seal.events;
        for record in &scanned.records {
            if record.is_whole {
                self.add_record(number, record.offset, &record.header);
            } else {
                self.add_damaged(&record.header);
            }
        }
        // 3. What cannot be read behind them.
        if scanned.tail_bytes > 0 {
            self.note_tail(scanned.tail_bytes);
        }
        self.segments.push_back(Segment {
            number,
            path,
            before,
            bytes: bytes as u64,
        });
    }

    fn note_tail(&mut self, bytes: usize) {
        self.tail.get_or_insert(LostEvents {
            count: None,
            bytes: bytes as u64,
        });
    }

    fn add_record(&mut self, segment: u32, offset: usize, header: &RecordHeader) {
        self.advance_to(header.producer, header.before);
        self.batches.push_back(BatchRef {
            first: header.before.events + 1,
            count: u64::from(header.count),
            location: RecordLocation::Disk {
                segment,
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
            },
        });
        self.seal = header.seal();
    }

    /// A record of which only the header can be read. The next header shows whether it is a hole or
    /// the end.
    fn add_damaged(&mut self, header: &RecordHeader) {
        let end = header.seal();
        if self.producer == Some(header.producer) && end.events > self.seal.events {
            self.tail = Some(LostEvents {
                count: Some(end.events - self.seal.events),
                bytes: end.bytes.saturating_sub(self.seal.bytes),
            });
        }
    }

    /// Advances to the position that a header contains.
    fn advance_to(&mut self, producer: Uuid, before: Seal) {
        let tail = self.tail.take();
        if self.producer != Some(producer) {
            self.restart_with(producer, before, tail);
        } else if before.events > self.seal.events {
            self.batches.push_back(BatchRef {
                first: self.seal.events + 1,
                count: before.events - self.seal.events,
                location: RecordLocation::Hole {
                    bytes: before.bytes.saturating_sub(self.seal.bytes),
                },
            });
            self.seal = before;
        } else if before.events < self.seal.events {
            self.go_back_to(before);
        }
    }

    /// An older process wrote on with seqs that belong to its successor.
    fn go_back_to(&mut self, before: Seal) {
        tracing::warn!(
            events = self.seal.events - before.events,
            "a replaced process kept writing to the spool; those events are ignored"
        );
        while let Some(newest) = self.batches.back_mut() {
            if newest.last() <= before.events {
                break;
            }
            if newest.first > before.events {
                self.batches.pop_back();
                continue;
            }
            // No writer cuts within a batch, so this is damage of unknown extent.
            newest.count = before.events + 1 - newest.first;
            newest.location = RecordLocation::Hole { bytes: 0 };
        }
        self.seal = before;
    }

    /// The folder goes on with another producer, because its predecessor could not be read well
    /// enough to be continued. The predecessor's events cannot be sent under the new id.
    fn restart_with(&mut self, producer: Uuid, before: Seal, tail: Option<LostEvents>) {
        self.lost.extend(tail);
        if let (Some(oldest), Some(newest)) = (self.batches.front(), self.batches.back()) {
            self.lost.push(LostEvents {
                count: Some(newest.last() + 1 - oldest.first),
                bytes: 0,
            });
        }
        self.batches.clear();
        self.producer = Some(producer);
        self.seal = before;
    }
}
