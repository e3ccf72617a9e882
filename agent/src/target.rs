//! Where a publisher publishes, and what may be chosen about it.

use std::path::PathBuf;
use std::time::Duration;

use runcast_common::config::RedisUrl;
use runcast_common::protocol::event::Kind;
use runcast_common::scripts::Cap;
use uuid::Uuid;

/// Where to publish: one variation of a run, and the Redis that carries it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub redis: RedisUrl,
    /// What stands in front of every key there; mostly empty.
    pub prefix: String,
    /// The run.
    pub run: Uuid,
    /// Which of its attempts.
    pub variation: u16,
}

/// What may be chosen about a publisher.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for events that Postgres does not hold yet and that are in no spool.
    pub backlog_bytes: usize,
    /// What the run may hold in Redis before this publisher waits.
    pub cap: Cap,
    /// Files for events that Postgres does not hold yet. Without, they are only in memory, and lost
    /// with the process.
    pub spool: Option<SpoolOptions>,
    /// Kinds of which the oldest waiting events are dropped when spool or backlog are full and so is
    /// the queue, counted in a `gap` event. All others make the publisher wait.
    pub drop_oldest: Vec<Kind>,
    /// Time between two signs of life.
    pub pulse: Duration,
}

impl Options {
    /// The same with a spool in this folder.
    #[must_use]
    pub fn spooled_in(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            spool: Some(SpoolOptions::new(folder)),
            ..self
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog_bytes: crate::backlog::DEFAULT_BYTES,
            cap: Cap::default(),
            spool: None,
            drop_oldest: vec![Kind::Log],
            pulse: runcast_common::presence::heartbeat::HEARTBEAT_INTERVAL,
        }
    }
}

/// What may be chosen about a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder; each producer has a folder of its own in it.
    pub folder: PathBuf,
    /// Bytes of one producer's files.
    pub cap: u64,
    /// When they are synced to the disk.
    pub fsync: Fsync,
}

impl SpoolOptions {
    /// 256 MiB in this folder, synced every 200 ms while there is something to sync.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            cap: 256 * 1024 * 1024,
            fsync: Fsync::Interval(Duration::from_millis(200)),
        }
    }
}

/// When a spool is synced to the disk. Whatever the choice, what was written survives the death of
/// the process; this is about the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Never: the kernel writes when it likes.
    Never,
    /// So often, while there is something to sync.
    Interval(Duration),
    /// Every batch, before it is sent.
    Always,
}
