//! Sessions that are no good any more although their connections work: after a failover the server
//! of an open session may be a standby, and a setting of a role, such as being read-only, stays in
//! a session for as long as that lasts.
//!
//! An error that only a new session can end makes all sessions suspect that were opened before it,
//! at most every [`MIN_INTERVAL`]. The pool closes such a session instead of handing it out.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two moments from which on sessions are suspect: so an outage costs few
/// connections, and storing goes on within this time after it.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Sessions that were opened before are suspect: milliseconds after [`STARTED`].
static SUSPECT_BEFORE_MS: AtomicU64 = AtomicU64::new(0);

/// Makes the sessions suspect that are open now.
pub(super) fn suspect() {
    let (now, before) = (now_ms(), SUSPECT_BEFORE_MS.load(Ordering::Relaxed));
    if now.saturating_sub(before) >= MIN_INTERVAL.as_secs() * 1000 {
        SUSPECT_BEFORE_MS.store(now, Ordering::Relaxed);
    }
}

/// Whether a session of this age is not suspect.
pub(super) fn is_good(age: Duration) -> bool {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    now_ms().saturating_sub(age) >= SUSPECT_BEFORE_MS.load(Ordering::Relaxed)
}

fn now_ms() -> u64 {
    let elapsed = STARTED.elapsed() + MIN_INTERVAL;
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
