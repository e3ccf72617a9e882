//! What all streams of server-sent events share: keep-alive, and when clients come back.

use std::time::Duration;

use rand::RngExt as _;

/// Proxies cut connections that are silent for 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment without the blank line that would end an event: it can never be taken for one.
pub(crate) const KEEP_ALIVE_LINE: &[u8] = b":\n";

/// How soon a client is asked to come back after a connection that broke by itself. It stands before the first frame,
/// which always comes.
pub(crate) const RETRY_LINE: &[u8] = b"retry: 1000\n";

/// Why viewers have to go when the server drains.
pub const DRAINS: &str = "this server is being stopped";

/// Over what time clients are spread who have to reconnect because this server drains.
const DRAIN_WINDOW: Duration = Duration::from_secs(5);

/// A line that asks a client to come back in a while, each in another one.
pub(super) fn retry_spread() -> String {
    let window = u64::try_from(DRAIN_WINDOW.as_millis()).unwrap_or(u64::MAX);
    format!("retry: {}\n", rand::rng().random_range(100..=window))
}
