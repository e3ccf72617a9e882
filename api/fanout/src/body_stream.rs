//! A viewer whose connection the HTTP library serves (HTTP/2, TLS): its frames as a stream of
//! bytes.
//!
//! The library polls the stream only when the connection takes more. Time: a keep-alive after
//! [`KEEP_ALIVE`] of silence.

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use runcast_access::open_streams::revoked;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use crate::memory::SHED_REASON;
use crate::sse::{DRAIN_REASON, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE};
use crate::viewer::{Next, SelectionCache, Viewer};

/// How long a viewer waits before it checks the tail again. Only a safeguard, since every change of
/// the tail wakes it.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The body of an SSE response: the run from the cursor on. It ends when the run ends, the server
/// drains, the viewer's credential is revoked, memory runs short, or the client leaves.
pub fn viewer_body(mut viewer: Viewer) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let stop = viewer.hub().stop().clone();
        let opened = viewer.registration().cloned();
        let is_revoked = || opened.as_ref().is_some_and(|opened| opened.revocation().is_some());
        let mut changes = viewer.changes();
        let mut shedding = viewer.hub().shedding();
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        yield Bytes::from_static(RETRY_LINE);
        loop {
            // Before `next`, so that no change in between is missed.
            changes.mark_unchanged();
            if shedding.should_close() {
                yield viewer.closing(SHED_REASON);
                return;
            }
            match viewer.next(&mut SelectionCache::default()) {
                Next::Frames(selection) => {
                    for piece in &*selection.pieces {
                        if is_revoked() {
                            break;
                        }
                        yield piece.clone();
                    }
                    if !is_revoked() {
                        viewer.advance_to(selection.upto);
                    }
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    if !stop.is_cancelled() && !is_revoked() {
                        continue;
                    }
                }
                Next::Notice(frame) => {
                    yield frame;
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    continue;
                }
                Next::Last(frame) => {
                    yield frame;
                    return;
                }
                Next::Wait => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield viewer.closing(DRAIN_REASON);
                    return;
                }
                ending = revoked(opened.as_ref()) => {
                    yield viewer.closing(ending.reason());
                    return;
                }
                () = shedding.next_round() => {}
                changed = timeout(CHECK_INTERVAL, changes.changed()) => {
                    if let Ok(Err(_gone)) = changed {
                        yield viewer.closing(DRAIN_REASON);
                        return;
                    }
                }
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
            }
        }
    }
}
