//! Where a spool lies: names of folders and files, who owns an epoch, and what is known of the run.
//!
//! ```text
//! DIR/<run>-<variation>/                    one producer
//!     <epoch>.lock                          locked by the process of that epoch for as long as it lives
//!     <epoch>-<index>.spool                 its segments
//!     run.json                              only where the run could not be created yet
//! ```
//!
//! Two processes on one folder: each takes an epoch of its own by creating its lock file, which only
//! one can, and writes only files of that epoch. The larger epoch is the successor: it reads what the
//! other has written until then, and the append script fences the other. What the other still writes
//! after that stands under seqs that the successor uses too; a later reader sees by the successor's
//! first segment where the other's count, and passes over the rest (see `chain`). Either may delete
//! what is durable, for that is a fact and not an opinion.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use runcast_common::protocol::event;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::NewRun;

/// Largest epoch: such numbers still are exact in the append script.
const MAX_EPOCH: u64 = 1 << 53;

/// The folder of one producer.
pub(crate) fn of_producer(spool: &Path, run: Uuid, variation: u16) -> PathBuf {
    spool.join(format!("{run}-{variation}"))
}

/// Run and variation of a producer's folder, if it is one.
pub(crate) fn parse(folder: &Path) -> Option<(Uuid, u16)> {
    let (run, variation) = folder.file_name()?.to_str()?.rsplit_once('-')?;
    Some((Uuid::try_parse(run).ok()?, variation.parse().ok()?))
}

/// Makes a folder that only its owner may look into: what a run printed is nobody else's business.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Creates a file that only its owner may read, and that is not there yet.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// An epoch, and the lock that says its process lives. The file stays until a later process takes its
/// place, so that epochs grow even where the clock goes back.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) number: u64,
    /// Held until this value is dropped, or the process dies in whatever way.
    _lock: File,
}

impl Epoch {
    /// Takes an epoch above all that were used in the folder.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        let used = files(folder, "lock")?;
        let segments = segments(folder)?;
        let all = used.iter().chain(&segments);
        let highest = all.filter_map(|path| epoch_of(path)).max().unwrap_or(0);
        let mut number = event::now_ms().max(highest + 1);
        loop {
            let path = folder.join(format!("{number:016}.lock"));
            let created = create(&path);
            match created {
                Ok(lock) => {
                    lock.lock()?;
                    for old in used.iter().filter(|old| is_locked(old).is_ok_and(|is| !is)) {
                        // One that stays is known by not being locked.
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

/// True if a process lives that publishes from this folder.
pub(crate) fn is_in_use(folder: &Path) -> io::Result<bool> {
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

/// The path of a segment.
pub(crate) fn segment(folder: &Path, epoch: u64, index: u32) -> PathBuf {
    folder.join(format!("{epoch:016}-{index:08}.spool"))
}

/// All segments, in the order in which they were written.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    files(folder, "spool")
}

/// The files of one kind that belong to an epoch, sorted.
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

/// The epoch in the name of a segment or lock.
pub(super) fn epoch_of(path: &Path) -> Option<u64> {
    let name = path.file_stem()?.to_str()?;
    let number = name.split_once('-').map_or(name, |(epoch, _index)| epoch);
    number.parse().ok().filter(|epoch| *epoch < MAX_EPOCH)
}

/// What a run that could not be created yet shall be, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    #[serde(flatten)]
    pub(crate) run: NewRun,
    /// The run's real id, once it has been created.
    pub(crate) created: Option<Uuid>,
}

impl Planned {
    /// Read from a producer's folder; none if the folder's run exists.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join("run.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Written so that a crash leaves the old or the new one.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        make(folder)?;
        let draft = folder.join("run.json.new");
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = create(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(draft, folder.join("run.json"))
    }
}
