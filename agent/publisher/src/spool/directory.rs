//! The folder of a spool: names of folders and files, and which process owns an epoch.
//!
//! ```text
//! DIR/<run>-<variation>/       one producer
//!     <epoch>.lock             locked by the process of that epoch for as long as it lives
//!     <epoch>-<index>.spool    its segments
//!     run.json                 only if the run could not be created yet (written by the program)
//! ```
//!
//! Two processes in one folder: each takes an epoch by creating its lock file, which only one
//! process can, and writes only files of that epoch. The larger epoch is the successor: it reads
//! what the other process has written so far, and the append script fences that process. Whatever
//! the fenced process still writes has seqs that the successor uses too. A later reader sees in the
//! successor's first segment up to where the other's events count, and ignores the rest (see
//! `recovery`). Both may delete segments that are durable, since durability does not depend on who
//! looks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use runcast_common::protocol::event;
use uuid::Uuid;

/// Epochs stay below this, so that they are exact in the append script, whose numbers are doubles.
const MAX_EPOCH: u64 = 1 << 53;

/// The folder of one producer.
#[must_use]
pub fn producer_folder(spool: &Path, run: Uuid, variation: u16) -> PathBuf {
    spool.join(format!("{run}-{variation}"))
}

/// The run and variation of a producer's folder; none for any other folder.
#[must_use]
pub fn parse_producer_folder(folder: &Path) -> Option<(Uuid, u16)> {
    let (run, variation) = folder.file_name()?.to_str()?.rsplit_once('-')?;
    Some((Uuid::try_parse(run).ok()?, variation.parse().ok()?))
}

/// Creates a folder that only its owner can open, since the output of a run may be confidential.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Creates a file that only its owner can read. Fails if the file exists.
pub fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// The epoch of this process, and the lock that shows that it lives. The lock file stays until a
/// later process replaces it, so that epochs grow even if the clock goes back.
#[derive(Debug)]
pub(super) struct EpochLock {
    pub(super) number: u64,
    /// Locked until this value is dropped or the process dies.
    _lock: File,
}

impl EpochLock {
    /// Takes an epoch above all that were used in the folder.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        let used = files(folder, "lock")?;
        let segments = segments(folder)?;
        let all = used.iter().chain(&segments);
        let highest = all.filter_map(|path| epoch_of(path)).max().unwrap_or(0);
        let mut number = event::now_ms().max(highest + 1);
        loop {
            let path = folder.join(format!("{number:016}.lock"));
            match create_file(&path) {
                Ok(lock) => {
                    lock.lock()?;
                    for old in used.iter().filter(|old| is_locked(old).is_ok_and(|is| !is)) {
                        // If that fails the file stays, unlocked, and the next process tries again.
                        drop(fs::remove_file(old));
                    }
                    return Ok(Self {
                        number,
                        _lock: lock,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a living process publishes from this folder.
pub fn is_in_use(folder: &Path) -> io::Result<bool> {
    for lock in files(folder, "lock")? {
        if is_locked(&lock)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_locked(lock: &Path) -> io::Result<bool> {
    match File::open(lock)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn segment_path(folder: &Path, epoch: u64, index: u32) -> PathBuf {
    folder.join(format!("{epoch:016}-{index:08}.spool"))
}

/// All segments, in the order in which they were written.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    files(folder, "spool")
}

/// The files with this extension that belong to an epoch, sorted.
fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|one| one == extension) && epoch_of(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The epoch in the name of a segment or lock file.
pub(super) fn epoch_of(path: &Path) -> Option<u64> {
    let name = path.file_stem()?.to_str()?;
    let number = name.split_once('-').map_or(name, |(epoch, _index)| epoch);
    number.parse().ok().filter(|epoch| *epoch < MAX_EPOCH)
}
