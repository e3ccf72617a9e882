//! What a folder's segments hold together: whole batches in the order of their seqs, and counted
//! holes where something cannot be read.
//!
//! Every header tells the seal before it, so the chain knows at each of them where it should stand:
//! ahead of that, what lies between is a hole; behind it, an older process went on writing after its
//! successor had started, and what it wrote then is passed over, because the successor has given
//! those seqs to other events. What cannot be read at the very end has no seqs any more: it was not
//! sent, or Redis has it; it is a [`Loss`] that the new process tells of.
//!
//! Memory: one segment at a time, and an [`Entry`] for each batch. No time limit: reading 256 MiB
//! from a disk takes seconds at worst.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use runcast_common::protocol::seal::Seal;
use uuid::Uuid;

use super::folder;
use super::format::{RecordHeader, SEGMENT_HEADER, scan};

/// Consecutive events of the producer, without their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Seq of the first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
    pub(crate) place: Place,
}

impl Entry {
    /// Seq of the last event.
    pub(crate) const fn last(&self) -> u64 {
        self.first + self.count - 1
    }
}

/// Where the bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a segment of this number, a record that starts here.
    Disk { segment: u32, at: u32 },
    /// Only in memory.
    Memory,
    /// Nowhere; so many bytes of lines were there once.
    Hole { bytes: u64 },
}

/// A segment on disk.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    /// Seq before its first event. Once that is durable the segments before this one can go, and not
    /// earlier: between them and this one there may be events that no file holds.
    pub(crate) before: u64,
    pub(crate) bytes: u64,
}

/// Events that are lost and have no seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// How many, if that is known.
    pub(crate) count: Option<u64>,
    /// Bytes of their lines, or of what cannot be read.
    pub(crate) bytes: u64,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) producer: Option<Uuid>,
    /// Over everything that was ever published, as far as it is known here.
    pub(crate) seal: Seal,
    /// Without a hole between them, oldest first; all are behind what was durable for certain.
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) losses: Vec<Loss>,
    /// The unreadable end of what was read so far.
    tail: Option<Loss>,
}

impl Chain {
    /// Reads all segments of a folder.
    pub(crate) fn read(folder: &Path, run: Uuid, variation: u16) -> io::Result<Self> {
        let mut chain = Self::default();
        let mut blank = false;
        for (number, path) in (0..).zip(folder::segments(folder)?) {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // Another process may delete what is durable at any time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            blank |= bytes.is_empty();
            let scanned = scan(&bytes);
            if let Some(header) = scanned.header {
                if (header.run, header.variation) != (run, variation) {
                    tracing::warn!(path = %path.display(), "a spool file of another run is left alone");
                    continue;
                }
                // Nothing else tells of what the oldest file held if nothing is left in it.
                if blank && chain.producer.is_none() && header.before.events > 0 {
                    chain.tail.get_or_insert(Loss {
                        count: None,
                        bytes: 0,
                    });
                }
                chain.go_to(header.producer, header.before);
            } else if let Some(first) = scanned.records.first()
                && first.at > SEGMENT_HEADER
            {
                // How many events stood there only a chain that reaches here can tell.
                chain.tail.get_or_insert(Loss {
                    count: None,
                    bytes: (first.at - SEGMENT_HEADER) as u64,
                });
            }
            let before = chain.seal.events;
            for seen in &scanned.records {
                if seen.whole {
                    chain.record(number, seen.at, &seen.header);
                } else {
                    chain.damaged(&seen.header);
                }
            }
            if scanned.tail > 0 {
                chain.tail.get_or_insert(Loss {
                    count: None,
                    bytes: scanned.tail as u64,
                });
            }
            chain.segments.push_back(Segment {
                number,
                path,
                before,
                bytes: bytes.len() as u64,
            });
        }
        chain.losses.extend(chain.tail.take());
        Ok(chain)
    }

    fn record(&mut self, segment: u32, at: usize, header: &RecordHeader) {
        self.go_to(header.producer, header.before);
        self.entries.push_back(Entry {
            first: header.before.events + 1,
            count: u64::from(header.count),
            place: Place::Disk {
                segment,
                at: u32::try_from(at).unwrap_or(u32::MAX),
            },
        });
        self.seal = header.seal();
    }

    /// A record of which only the header can be read. Whether it is within the chain or at its end
    /// the next header tells.
    fn damaged(&mut self, header: &RecordHeader) {
        let end = header.seal();
        if self.producer == Some(header.producer) && end.events > self.seal.events {
            self.tail = Some(Loss {
                count: Some(end.events - self.seal.events),
                bytes: end.bytes.saturating_sub(self.seal.bytes),
            });
        }
    }

    /// A header that says what stands before it.
    fn go_to(&mut self, producer: Uuid, before: Seal) {
        let loss = self.tail.take();
        if self.producer != Some(producer) {
            self.another(producer, before, loss);
        } else if before.events > self.seal.events {
            self.entries.push_back(Entry {
                first: self.seal.events + 1,
                count: before.events - self.seal.events,
                place: Place::Hole {
                    bytes: before.bytes.saturating_sub(self.seal.bytes),
                },
            });
            self.seal = before;
        } else if before.events < self.seal.events {
            self.go_back(before);
        }
    }

    /// An older process wrote on under seqs that are its successor's.
    fn go_back(&mut self, before: Seal) {
        tracing::warn!(
            events = self.seal.events - before.events,
            "a process that had been replaced wrote on; what it wrote is passed over"
        );
        while let Some(newest) = self.entries.back_mut() {
            if newest.last() <= before.events {
                break;
            }
            if newest.first > before.events {
                self.entries.pop_back();
                continue;
            }
            // No writer cuts within a batch: this is damage, and what it covers is not known whole.
            newest.count = before.events + 1 - newest.first;
            newest.place = Place::Hole { bytes: 0 };
        }
        self.seal = before;
    }

    /// The folder goes on with another producer, whose predecessor could not be read well enough to
    /// be continued. What is left of that one cannot be sent under the new id.
    fn another(&mut self, producer: Uuid, before: Seal, loss: Option<Loss>) {
        self.losses.extend(loss);
        if let (Some(oldest), Some(newest)) = (self.entries.front(), self.entries.back()) {
            self.losses.push(Loss {
                count: Some(newest.last() + 1 - oldest.first),
                bytes: 0,
            });
        }
        self.entries.clear();
        self.producer = Some(producer);
        self.seal = before;
    }
}
