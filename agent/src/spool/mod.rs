//! The spool: batches in files, so that they survive the process that published them.
//!
//! - `format`: the bytes of a segment, pure;
//! - `folder`: names, epochs, two processes on one folder;
//! - `chain`: what all segments of a folder hold together;
//! - `late`: what an older process wrote after the look;
//! - `sync`: when what was written is synced.
//!
//! Here: writing records, reading one again, deleting segments. A record is written before its batch
//! may be sent. Segments are deleted whole, once Postgres holds everything before the next one; the
//! newest stays, since it carries producer, seq and seal on to the next process.
//!
//! Bounds: the folder holds at most the cap plus one batch, and while it holds that it has no room;
//! in memory there is one buffer of a batch. Time: writes go to the page cache within the caller's
//! turn; syncs of the policy `interval` run on a thread of their own, those of `always` in the
//! caller's turn, which a disk may stretch to tens of milliseconds.
//!
//! Guarantees: what was written survives the death of the process by any signal. The death of the
//! machine it survives as far as it was synced. A failed write leaves a file that reads as before.

pub(crate) mod chain;
pub(crate) mod folder;
pub(crate) mod format;
mod late;
mod sync;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runcast_common::protocol::seal::Seal;
use uuid::Uuid;

use self::chain::{Chain, Place, Segment};
use self::folder::Epoch;
use self::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader};
use self::sync::Sync;
use crate::batch::Batch;
use crate::target::Fsync;

/// Bytes after which a segment is closed: small enough that deleting whole segments follows the
/// watermark closely, large enough that a cap of 256 MiB is a few dozen files.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Segments that a small cap still consists of, so that deleting one makes room.
const SEGMENTS_AT_LEAST: u64 = 8;

/// After a failed write the next attempt is not before this.
const RETRY: Duration = Duration::from_secs(1);

/// Whose spool it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) run: Uuid,
    pub(crate) variation: u16,
    pub(crate) producer: Uuid,
}

/// The open spool of one process.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    owner: Owner,
    epoch: Epoch,
    segments: VecDeque<Segment>,
    bytes: u64,
    cap: u64,
    /// The segment being written: the newest one.
    writer: Option<File>,
    next_index: u32,
    sync: Sync,
    retry_at: Option<Instant>,
    buffer: Vec<u8>,
    reader: Option<(u32, File)>,
}

impl Spool {
    /// Opens the folder for a new process, and gives what is left in it.
    pub(crate) fn open(
        folder: &Path,
        run: Uuid,
        variation: u16,
        cap: u64,
        fsync: Fsync,
    ) -> io::Result<(Self, Chain)> {
        folder::make(folder)?;
        // First the epoch, then the look: whoever takes a larger one will see what was written here.
        let epoch = Epoch::take(folder)?;
        let mut chain = Chain::read(folder, run, variation)?;
        let owner = Owner {
            run,
            variation,
            producer: chain.producer.unwrap_or_else(Uuid::now_v7),
        };
        let segments = std::mem::take(&mut chain.segments);
        let spool = Self {
            folder: folder.to_owned(),
            owner,
            epoch,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            cap,
            writer: None,
            next_index: 0,
            sync: Sync::new(fsync),
            retry_at: None,
            buffer: Vec::new(),
            reader: None,
        };
        Ok((spool, chain))
    }

    /// The producer and the epoch of this process.
    pub(crate) const fn identity(&self) -> (Uuid, u64) {
        (self.owner.producer, self.epoch.number)
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// True if one more batch may be written.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes < self.cap
    }

    /// Writes a batch. On an error nothing was written; [`has_failed`](Self::has_failed) then tells
    /// for a while not to try again.
    pub(crate) fn append(&mut self, before: Seal, after: Seal, batch: &Batch) -> io::Result<Place> {
        let result = self.write(before, after, batch);
        match &result {
            Ok(_place) => self.retry_at = None,
            Err(_error) => self.retry_at = Some(Instant::now() + RETRY),
        }
        result
    }

    /// True if a write failed just now.
    pub(crate) fn has_failed(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() < at)
    }

    /// What comes next is tried whatever happened just before.
    pub(crate) const fn forgive(&mut self) {
        self.retry_at = None;
    }

    fn write(&mut self, before: Seal, after: Seal, batch: &Batch) -> io::Result<Place> {
        let header = RecordHeader {
            producer: self.owner.producer,
            length: u32::try_from(batch.body.len()).map_err(io::Error::other)?,
            count: u32::try_from(batch.count).map_err(io::Error::other)?,
            before,
            after: after.checksum,
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(&batch.body);
        let limit = (self.cap / SEGMENTS_AT_LEAST).min(SEGMENT_BYTES);
        let full = |segment: &Segment| segment.bytes >= limit;
        if self.writer.is_none() || self.segments.back().is_some_and(full) {
            self.roll(before)?;
        }
        let (Some(file), Some(segment)) = (&self.writer, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment"));
        };
        let at = segment.bytes;
        let written = file.write_all_at(&self.buffer, at);
        if let Err(error) = written.and_then(|()| self.sync.written(file)) {
            // What cannot be cut off is read as damage of known length; a new segment follows it.
            if file.set_len(at).is_err() {
                self.writer = None;
            }
            return Err(error);
        }
        let length = self.buffer.len() as u64;
        segment.bytes += length;
        self.bytes += length;
        Ok(Place::Disk {
            segment: segment.number,
            at: u32::try_from(at).map_err(io::Error::other)?,
        })
    }

    /// Starts a new segment, which says what stands before it.
    fn roll(&mut self, before: Seal) -> io::Result<()> {
        self.close_segment();
        let header = SegmentHeader {
            run: self.owner.run,
            variation: self.owner.variation,
            producer: self.owner.producer,
            epoch: self.epoch.number,
            before,
        };
        let path = folder::segment(&self.folder, self.epoch.number, self.next_index);
        let file = folder::create(&path)?;
        self.next_index += 1;
        let written = file.write_all_at(&header.encode(), 0);
        if let Err(error) = written.and_then(|()| self.sync.created(&file, &self.folder)) {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let number = self.segments.back().map_or(0, |newest| newest.number + 1);
        self.segments.push_back(Segment {
            number,
            path,
            before: before.events,
            bytes: SEGMENT_HEADER as u64,
        });
        self.bytes += SEGMENT_HEADER as u64;
        self.writer = Some(file);
        Ok(())
    }

    /// The next batch shall open a segment of its own: seqs do not go on where the last one ended.
    pub(crate) fn close_segment(&mut self) {
        if let Some(file) = self.writer.take() {
            self.sync.closed(file);
        }
    }

    /// Reads a batch again; an error too if its bytes have changed.
    pub(crate) fn read(&mut self, segment: u32, at: u32) -> io::Result<Batch> {
        if self
            .reader
            .as_ref()
            .is_none_or(|(open, _)| *open != segment)
        {
            let named = self.segments.iter().find(|one| one.number == segment);
            let named = named.ok_or_else(|| io::Error::other("the segment is gone"))?;
            self.reader = Some((segment, File::open(&named.path)?));
        }
        let Some((_, file)) = &self.reader else {
            return Err(io::Error::other("no segment"));
        };
        let mut head = [0; RECORD_HEADER];
        file.read_exact_at(&mut head, u64::from(at))?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the record has changed");
        let header = RecordHeader::decode(&head).ok_or_else(damaged)?;
        let mut body = vec![0; header.length as usize];
        file.read_exact_at(&mut body, u64::from(at) + RECORD_HEADER as u64)?;
        if !header.fits(&body) {
            return Err(damaged());
        }
        Ok(Batch::new(
            header.before.events + 1,
            u64::from(header.count),
            body,
        ))
    }

    /// Deletes segments that are durable as a whole, except the newest.
    pub(crate) fn release(&mut self, durable: u64) {
        while self
            .segments
            .get(1)
            .is_some_and(|next| next.before <= durable)
        {
            let Some(oldest) = self.segments.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes;
            if let Err(error) = fs::remove_file(&oldest.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %oldest.path.display(), %error, "a spool file cannot be deleted");
            }
        }
    }

    /// When a sync is due, if one is.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        self.sync.due()
    }

    /// Syncs if that is due.
    pub(crate) fn sync_if_due(&mut self) {
        if let Some(file) = &self.writer {
            self.sync.if_due(file);
        }
    }

    /// Syncs what was written, before it returns.
    pub(crate) fn sync_now(&mut self) {
        if let Some(file) = &self.writer {
            self.sync.now(file);
        }
    }

    /// Deletes everything: the run is over and stored.
    pub(crate) fn remove(self) {
        let folder = self.folder.clone();
        drop(self);
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a spool cannot be deleted");
        }
    }
}

#[cfg(test)]
mod tests;
