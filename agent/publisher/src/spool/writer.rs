//! [`Spool`]: writes batches as records of segments, reads them again and deletes segments.
//!
//! A record is written before its batch may be sent. Segments are deleted as a whole, once Postgres
//! holds everything before the next one. The newest stays, since it carries the producer, its seq
//! and its seal on to the next process.
//!
//! Bounds: the folder holds at most its limit plus one batch, and has no room while it is at the
//! limit. Memory: one buffer of a batch. Time: writes go to the page cache on the caller's thread.
//! Syncs of the policy `Interval` run on another thread, those of `Always` on the caller's, which a
//! disk may delay by tens of milliseconds.
//!
//! Guarantees: what was written survives the death of the process by any signal, and the death of
//! the machine as far as it was synced. After a failed write the file reads as before it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runcast_common::protocol::seal::Seal;
use uuid::Uuid;

use super::directory::{self, EpochLock};
use super::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::fsync::Syncer;
use super::recovery::{RecordLocation, RecoveredSpool, Segment};
use crate::options::Fsync;
use crate::queue::batch::Batch;

/// Size at which a segment is closed: small enough that deleting whole segments follows the
/// watermark closely, large enough that a limit of 256 MiB is a few dozen files.
const MAX_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Number of segments of even a small spool, so that deleting one makes room.
const MIN_SEGMENTS: u64 = 8;

/// Wait after a failed write before the next attempt.
const WRITE_RETRY_WAIT: Duration = Duration::from_secs(1);

/// The producer that the spool belongs to.
#[derive(Debug, Clone, Copy)]
struct SpoolOwner {
    run: Uuid,
    variation: u16,
    producer: Uuid,
}

/// The open spool of one process.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    owner: SpoolOwner,
    epoch: EpochLock,
    segments: VecDeque<Segment>,
    bytes: u64,
    max_bytes: u64,
    /// The newest segment, which is being written.
    writer: Option<File>,
    next_index: u32,
    sync: Syncer,
    retry_at: Option<Instant>,
    buffer: Vec<u8>,
    reader: Option<(u32, File)>,
}

impl Spool {
    /// Opens the folder for a new process, and returns what earlier processes left in it.
    pub(crate) fn open(
        folder: &Path,
        run: Uuid,
        variation: u16,
        max_bytes: u64,
        fsync: Fsync,
    ) -> io::Result<(Self, RecoveredSpool)> {
        directory::create_folder(folder)?;
        // First the epoch, then the segments: a process that takes a larger epoch later will see
        // what this one wrote.
        let epoch = EpochLock::take(folder)?;
        let mut recovered = RecoveredSpool::read(folder, run, variation)?;
        let owner = SpoolOwner {
            run,
            variation,
            producer: recovered.producer.unwrap_or_else(Uuid::now_v7),
        };
        let segments = std::mem::take(&mut recovered.segments);
        let spool = Self {
            folder: folder.to_owned(),
            owner,
            epoch,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            max_bytes,
            writer: None,
            next_index: 0,
            sync: Syncer::new(fsync),
            retry_at: None,
            buffer: Vec::new(),
            reader: None,
        };
        Ok((spool, recovered))
    }

    /// The producer and the epoch of this process.
    pub(crate) const fn identity(&self) -> (Uuid, u64) {
        (self.owner.producer, self.epoch.number)
    }

    pub(super) const fn producer(&self) -> Uuid {
        self.owner.producer
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch.number
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether one more batch may be written.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes < self.max_bytes
    }

    /// Writes a batch, which leads from one seal to the next. On an error nothing was written, and
    /// [`has_failed`](Self::has_failed) is true for a while.
    pub(crate) fn append(
        &mut self,
        before: Seal,
        after: Seal,
        batch: &Batch,
    ) -> io::Result<RecordLocation> {
        let result = self.write(before, after, batch);
        match &result {
            Ok(_location) => self.retry_at = None,
            Err(_error) => self.retry_at = Some(Instant::now() + WRITE_RETRY_WAIT),
        }
        result
    }

    /// Whether a write failed so recently that the next one must wait.
    pub(crate) fn has_failed(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() < at)
    }

    /// Allows the next write even right after a failed one.
    pub(crate) const fn retry_now(&mut self) {
        self.retry_at = None;
    }

    fn write(&mut self, before: Seal, after: Seal, batch: &Batch) -> io::Result<RecordLocation> {
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
        let limit = (self.max_bytes / MIN_SEGMENTS).min(MAX_SEGMENT_BYTES);
        let is_full = |segment: &Segment| segment.bytes >= limit;
        if self.writer.is_none() || self.segments.back().is_some_and(is_full) {
            self.open_segment(before)?;
        }
        let (Some(file), Some(segment)) = (&self.writer, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment"));
        };
        let offset = segment.bytes;
        let written = file.write_all_at(&self.buffer, offset);
        if let Err(error) = written.and_then(|()| self.sync.on_write(file)) {
            // Cut off what was written. If that fails too it reads as damage of known length, and a
            // new segment follows it.
            if file.set_len(offset).is_err() {
                self.writer = None;
            }
            return Err(error);
        }
        let length = self.buffer.len() as u64;
        segment.bytes += length;
        self.bytes += length;
        Ok(RecordLocation::Disk {
            segment: segment.number,
            offset: u32::try_from(offset).map_err(io::Error::other)?,
        })
    }

    /// Starts a new segment, whose header holds the seal before it.
    fn open_segment(&mut self, before: Seal) -> io::Result<()> {
        self.close_segment();
        let header = SegmentHeader {
            run: self.owner.run,
            variation: self.owner.variation,
            producer: self.owner.producer,
            epoch: self.epoch.number,
            before,
        };
        let path = directory::segment_path(&self.folder, self.epoch.number, self.next_index);
        let file = directory::create_file(&path)?;
        self.next_index += 1;
        let written = file.write_all_at(&header.encode(), 0);
        if let Err(error) = written.and_then(|()| self.sync.on_create(&file, &self.folder)) {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let number = self.segments.back().map_or(0, |newest| newest.number + 1);
        self.segments.push_back(Segment {
            number,
            path,
            before: before.events,
            bytes: SEGMENT_HEADER_BYTES as u64,
        });
        self.bytes += SEGMENT_HEADER_BYTES as u64;
        self.writer = Some(file);
        Ok(())
    }

    /// Makes the next batch start a new segment: its seqs do not continue those of the last one.
    pub(crate) fn close_segment(&mut self) {
        if let Some(file) = self.writer.take() {
            self.sync.on_close(file);
        }
    }

    /// Reads a batch again. Fails if its bytes have changed.
    pub(crate) fn read(&mut self, segment: u32, offset: u32) -> io::Result<Batch> {
        if self
            .reader
            .as_ref()
            .is_none_or(|(open, _)| *open != segment)
        {
            let found = self.segments.iter().find(|one| one.number == segment);
            let found = found.ok_or_else(|| io::Error::other("the segment was deleted"))?;
            self.reader = Some((segment, File::open(&found.path)?));
        }
        let Some((_, file)) = &self.reader else {
            return Err(io::Error::other("no segment"));
        };
        let mut header = [0; RECORD_HEADER_BYTES];
        file.read_exact_at(&mut header, u64::from(offset))?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the record has changed");
        let header = RecordHeader::decode(&header).ok_or_else(damaged)?;
        let mut body = vec![0; header.length as usize];
        file.read_exact_at(&mut body, u64::from(offset) + RECORD_HEADER_BYTES as u64)?;
        if !header.matches_body(&body) {
            return Err(damaged());
        }
        Ok(Batch::new(
            header.before.events + 1,
            u64::from(header.count),
            body,
        ))
    }

    /// Deletes segments whose events are all durable, except the newest one.
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
                tracing::warn!(path = %oldest.path.display(), %error, "a spool file could not be deleted");
            }
        }
    }

    /// When the next sync is due; none without unsynced data.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        self.sync.due_at()
    }

    pub(crate) fn sync_if_due(&mut self) {
        if let Some(file) = &self.writer {
            self.sync.sync_if_due(file);
        }
    }

    /// Syncs everything that was written, before it returns.
    pub(crate) fn sync_now(&mut self) {
        if let Some(file) = &self.writer {
            self.sync.sync_now(file);
        }
    }

    /// Deletes the whole folder.
    pub(crate) fn delete(self) {
        let folder = self.folder.clone();
        drop(self);
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a spool could not be deleted");
        }
    }
}
