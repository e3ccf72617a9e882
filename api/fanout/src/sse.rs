//! What all streams of server-sent events share: keep-alive, and when clients reconnect.

use std::time::Duration;

use rand::RngExt as _;

/// Silence after which a stream sends [`KEEP_ALIVE_LINE`]. Proxies cut connections that are silent
/// for 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment without the blank line that would end an event, so no client can take it for one.
pub(crate) const KEEP_ALIVE_LINE: &[u8] = b":\n";

/// Makes clients reconnect after 1 s when the connection breaks. It precedes the first frame, which
/// always comes and ends it.
pub(crate) const RETRY_LINE: &[u8] = b"retry: 1000\n";

/// The reason that viewers get when the server drains.
pub const DRAIN_REASON: &str = "this server is being stopped";

/// The window over which reconnects are spread when this server closes its viewers.
const RECONNECT_WINDOW: Duration = Duration::from_secs(5);

/// A `retry:` line with a random delay within the window.
pub(crate) fn retry_spread() -> String {
    let window_ms = u64::try_from(RECONNECT_WINDOW.as_millis()).unwrap_or(u64::MAX);
    format!("retry: {}\n", rand::rng().random_range(100..=window_ms))
}
