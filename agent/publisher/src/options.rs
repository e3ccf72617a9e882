//! The options of a publisher, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use runcast_common::presence::heartbeat::HEARTBEAT_INTERVAL;
use runcast_common::protocol::event::Kind;
use runcast_common::scripts::Cap;

/// Default memory of the retransmit buffer: half a second of the fastest stream (500,000 events of
/// 250 bytes a second). That is several times what the persister needs for one cycle, and little
/// beside what a process that writes so much uses itself.
const DEFAULT_BUFFER_BYTES: usize = 64 * 1024 * 1024;

/// Default size of one producer's spool.
const DEFAULT_SPOOL_BYTES: u64 = 256 * 1024 * 1024;

/// Default time between two syncs of a spool.
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// Options of a publisher.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for events that neither Postgres nor the spool holds. Default: 64 MiB.
    pub buffer_bytes: usize,
    /// How much the run may hold in Redis before this publisher waits. It may only lower what the
    /// script and gateways allow.
    pub cap: Cap,
    /// Files for events that Postgres does not hold yet. Without a spool they are only in memory,
    /// and lost with the process.
    pub spool: Option<SpoolOptions>,
    /// Kinds whose oldest waiting events are dropped when the queue and the buffer or spool are
    /// full. A `gap` event counts them. Events of all other kinds make the caller wait.
    pub drop_oldest: Vec<Kind>,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
}

impl Options {
    /// Adds a spool in this folder, with default options.
    #[must_use]
    pub fn with_spool(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            spool: Some(SpoolOptions::new(folder)),
            ..self
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            cap: Cap::default(),
            spool: None,
            drop_oldest: vec![Kind::Log],
            heartbeat_interval: HEARTBEAT_INTERVAL,
        }
    }
}

/// Options of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder; each producer has a folder of its own in it.
    pub folder: PathBuf,
    /// Limit for the files of one producer.
    pub max_bytes: u64,
    /// When the files are synced to the disk.
    pub fsync: Fsync,
}

impl SpoolOptions {
    /// A spool of up to 256 MiB in this folder, synced every 200 ms while it has unsynced data.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_bytes: DEFAULT_SPOOL_BYTES,
            fsync: Fsync::Interval(DEFAULT_SYNC_INTERVAL),
        }
    }
}

/// When a spool is synced to the disk. With any policy, written data survives the death of the
/// process; the policy decides what survives the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Never: the kernel writes when it likes.
    Never,
    /// At this interval, while there is unsynced data.
    Interval(Duration),
    /// Every batch, before it is sent.
    Always,
}
