//! The bounds of the stream contract, with the reason for each figure.

use std::time::Duration;

/// Bound on an event line, without its newline, and with the line separators in it escaped.
///
/// An SSE frame repeats the line after `data: ` and adds an envelope of about 150 bytes. Several
/// EventSource clients cut lines at 512 KiB; half of that leaves room for any envelope.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Bound on the raw output in one event.
///
/// JSON escapes a byte to up to six (`\u0000`), and base64 adds a third. So 32 KiB stay below
/// [`MAX_EVENT_BYTES`] in the worst case, and any output can be published.
pub const MAX_CHUNK_BYTES: usize = 32 * 1024;

/// Bound on the events of one entry. An entry is one Redis call: 512 events reduce its cost to
/// under a tenth of a microsecond each, and a reader that needs one event reads at most 512.
pub const MAX_ENTRY_EVENTS: usize = 512;

/// A batch is closed when its body reaches this size. A longer event travels alone.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024;

/// Bound on an entry in Redis, with all its fields: four times what a publisher writes. Readers get
/// the size and the beginning of a larger one instead.
pub const MAX_STREAM_ENTRY_BYTES: usize = 2 * 1024 * 1024;

/// What is kept of an entry above [`MAX_STREAM_ENTRY_BYTES`], for the dead letter.
pub const MAX_SHOWN_ENTRY_BYTES: usize = 64 * 1024;

/// Entries of one run that Redis may hold before producers get `full`.
pub const MAX_RUN_ENTRIES: u64 = 1_000_000;

/// Body bytes of one run that Redis may hold before producers get `full`.
///
/// This is how far Postgres may fall behind before a producer waits. A producer at full speed
/// writes about 100 MB/s; 24 such runs fill a Redis of 6 GB.
pub const MAX_RUN_BYTES: u64 = 256 * 1024 * 1024;

/// Stored events that stay in Redis for viewers who reconnect: the live window.
pub const LIVE_WINDOW_EVENTS: u64 = 10_000;

/// Bound on the bytes of the live window, so that large events cannot hold gigabytes.
pub const LIVE_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Time after the last append until the live window expires, and after sealing until the keys of a
/// run do.
pub const LIVE_WINDOW_AGE: Duration = Duration::from_secs(15 * 60);

/// Bound on the variations of one run. The page shows them side by side, and each is a row in
/// Postgres.
pub const MAX_VARIATIONS: u16 = 256;

/// Bound on the name of a run.
pub const MAX_NAME_BYTES: usize = 200;

/// Bound on the labels of one run: the page shows them in one line.
pub const MAX_LABELS: usize = 32;

/// Bound on the name and on the value of a label.
pub const MAX_LABEL_BYTES: usize = 200;

/// Deadline for an ordinary Redis reply. A loaded server replies within milliseconds; a half-open
/// connection never does, and is closed after this time.
pub const REDIS_DEADLINE: Duration = Duration::from_secs(5);
