//! Every bound of the stream contract, with the reason for its figure.

use std::time::Duration;

/// Longest event line in bytes, without its newline.
///
/// An SSE frame repeats the line after `data: ` and adds about 150 bytes of envelope; several
/// EventSource clients cut lines at 512 KiB, so half of that leaves room for any envelope.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Most raw bytes of terminal output that go into one event.
///
/// JSON escapes inflate a byte up to six times (`\u0000`), and base64 by a third: 32 KiB stays
/// below [`MAX_EVENT_BYTES`] in the worst case, so output can always be published.
pub const MAX_CHUNK_BYTES: usize = 32 * 1024;

/// Most events in one entry. An entry is the unit of a Redis call: 512 events amortise its cost to
/// under a tenth of a microsecond each, and a reader that wants one event re-reads at most 512.
pub const MAX_ENTRY_EVENTS: usize = 512;

/// Bytes of body after which a batch is closed. A single longer event still travels, alone.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024;

/// Entries of one run that Redis may hold before producers are told `full`.
pub const MAX_RUN_ENTRIES: u64 = 1_000_000;

/// Body bytes of one run that Redis may hold before producers are told `full`.
///
/// A producer at full speed writes about 100 MB/s: this is what Postgres may fall behind per run
/// before the producer waits; 24 such runs fill a 6 GB Redis.
pub const MAX_RUN_BYTES: u64 = 256 * 1024 * 1024;

/// Stored events that stay in Redis for viewers who reconnect: the live window.
pub const LIVE_WINDOW_EVENTS: u64 = 10_000;

/// Stored bytes that stay in Redis at most, so that few large events cannot hold gigabytes.
pub const LIVE_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// How long stored events stay in Redis when nothing more is appended, and how long the keys of a
/// sealed run outlive it.
pub const LIVE_WINDOW_AGE: Duration = Duration::from_secs(15 * 60);

/// Most variations of one run. The page shows them side by side; every one is a row in Postgres.
pub const MAX_VARIATIONS: u16 = 256;

/// Longest name of a run in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// Most labels of one run: they are shown in one line.
pub const MAX_LABELS: usize = 32;

/// Longest name or value of a label in bytes.
pub const MAX_LABEL_BYTES: usize = 200;

/// Longest wait for an ordinary Redis reply. A loaded server answers within milliseconds; a
/// connection that is half open never does, and is given up after this.
pub const REDIS_DEADLINE: Duration = Duration::from_secs(5);
