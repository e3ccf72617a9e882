//! A viewer whose connection is served by the HTTP library (HTTP/2, TLS): its frames as a stream of bytes.
//!
//! The stream is asked for more only when the connection takes it. Time: a keep-alive after [`KEEP_ALIVE`] of silence.

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use runcast_access::open_streams::ended;

use super::memory::TOO_LITTLE;
use super::viewer::{Next, SelectionCache, Viewer};
use crate::sse::{DRAINS, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE};

/// How long a viewer waits before it looks at the tail again: a safeguard, since every change of the tail wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The bytes of an SSE response: the run from the cursor on, until it ends, the server drains, what the viewer was let
/// in by ends, it has to go for want of memory, or the client goes.
pub fn bytes(mut viewer: Viewer) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let stop = viewer.hub().stop().clone();
        let opened = viewer.opened().cloned();
        let has_ended = || opened.as_ref().is_some_and(|opened| opened.ending().is_some());
        let mut changes = viewer.changes();
        let mut shedding = viewer.hub().shedding();
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        yield Bytes::from_static(RETRY_LINE);
        loop {
            changes.mark_unchanged();
            if shedding.has_to_go() {
                yield viewer.closing(TOO_LITTLE);
                return;
            }
            match viewer.next(&mut SelectionCache::default()) {
                Next::Frames(selection) => {
                    for piece in &*selection.pieces {
                        if has_ended() {
                            break;
                        }
                        yield piece.clone();
                    }
                    if !has_ended() {
                        viewer.reached(selection.upto);
                    }
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    if !stop.is_cancelled() && !has_ended() {
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
                    yield viewer.closing(DRAINS);
                    return;
                }
                ending = ended(opened.as_ref()) => {
                    yield viewer.closing(ending.reason());
                    return;
                }
                () = shedding.round() => {}
                changed = timeout(LOOK_EVERY, changes.changed()) => {
                    if let Ok(Err(_gone)) = changed {
                        yield viewer.closing(DRAINS);
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
