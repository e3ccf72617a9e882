//! A viewer of several runs on one connection.
//!
//! It sends the frames of all its runs, in turn. The data of each frame gets a field `run`, and its
//! id holds a cursor for each run (see [`multi_cursor`]), so that each run resumes exactly. A run
//! that has ended sends its `end` frame and is followed no more. Others may join at any time.
//!
//! Data: a cursor per run, for at most [`MAX_WATCHED_RUNS`] runs at a time. Time: a keep-alive
//! after [`KEEP_ALIVE`] of silence, and a search for new runs every [`DISCOVERY_INTERVAL`], if any
//! may come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use futures::future::select_all;
use memchr::memmem;
use runcast_access::open_streams::StreamRegistration;
use runcast_common::protocol::event_id::EventId;
use runcast_history::filter::Filter;
use runcast_store::StoreError;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use uuid::Uuid;

use crate::hub::Hub;
use crate::memory::SHED_REASON;
use crate::multi_cursor::{self, MultiCursor};
use crate::sse::{DRAIN_REASON, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE, retry_spread};
use crate::viewer::{Next, SelectionCache, StreamRequest, Viewer};

/// How often a viewer looks for runs that were created since.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(2);

/// Runs that one viewer may watch at a time.
pub const MAX_WATCHED_RUNS: usize = 64;

/// Finds runs that a viewer should watch beside those that it began with.
pub trait RunDiscovery: Send {
    /// The runs to watch now; those that are watched already may be among them. After an error the
    /// next search tries again.
    fn find_runs(&mut self) -> impl Future<Output = Result<Vec<Uuid>, StoreError>> + Send;
}

/// No runs join later.
#[derive(Debug, Clone, Copy)]
pub struct NoDiscovery;

impl RunDiscovery for NoDiscovery {
    async fn find_runs(&mut self) -> Result<Vec<Uuid>, StoreError> {
        std::future::pending().await
    }
}

/// The runs that a viewer begins with.
#[derive(Debug, Default)]
pub struct Runs {
    /// To be followed.
    pub live: Vec<Uuid>,
    /// Ended, and sent to their end before.
    pub ended: Vec<Uuid>,
}

/// The body of an SSE response: these runs from the cursors on, and those that `discovery` finds.
/// It ends when all runs have ended and none can join, the server drains, the viewer's credential
/// is revoked, memory runs short, or the client leaves.
pub fn multi_viewer_body(
    hub: Arc<Hub>,
    runs: Runs,
    after: MultiCursor,
    filter: Filter,
    mut discovery: Option<impl RunDiscovery>,
    opened: StreamRegistration,
) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let stop = hub.stop().clone();
        let mut shedding = hub.shedding();
        let mut viewer = MultiViewer::new(hub, filter, runs, &after);
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        let mut discover_at = Instant::now() + DISCOVERY_INTERVAL;
        yield Bytes::from_static(RETRY_LINE);
        if viewer.viewers.is_empty() && discovery.is_some() {
            // No run sends `ready` yet, and the `retry:` line needs a frame that ends it.
            yield viewer.frame("ready", &json!({"kind": "ready"}));
        }
        loop {
            if shedding.should_close() {
                yield viewer.closing(SHED_REASON);
                return;
            }
            // Subscribed before `next`, so that no change in between is missed.
            let mut changes: Vec<_> = viewer.viewers.iter().map(Viewer::changes).collect();
            if let Some(frames) = viewer.next() {
                yield frames;
                keep_alive = Instant::now() + KEEP_ALIVE;
                if !stop.is_cancelled() && opened.revocation().is_none() {
                    continue;
                }
            }
            if viewer.viewers.is_empty() && discovery.is_none() {
                yield viewer.frame("end", &json!({"kind": "end"}));
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield viewer.closing(DRAIN_REASON);
                    return;
                }
                ending = opened.revoked() => {
                    yield viewer.closing(ending.reason());
                    return;
                }
                () = shedding.next_round() => {}
                () = any_changed(&mut changes) => {}
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
                () = sleep_until(discover_at), if discovery.is_some() => {
                    discover_at = Instant::now() + DISCOVERY_INTERVAL;
                    if let Some(discovery) = &mut discovery {
                        viewer.discover(discovery).await;
                    }
                }
            }
        }
    }
}

/// Waits until one of these tails changes.
async fn any_changed(changes: &mut [watch::Receiver<()>]) {
    match changes.is_empty() {
        true => std::future::pending().await,
        false => drop(select_all(changes.iter_mut().map(|one| Box::pin(one.changed()))).await),
    }
}

/// The runs of one viewer, and how far it has got in each.
struct MultiViewer {
    hub: Arc<Hub>,
    filter: Filter,
    /// One for each run that goes on.
    viewers: Vec<Viewer>,
    /// Also those of runs that have ended, so that a client that reconnects does not get them
    /// again.
    cursors: HashMap<Uuid, EventId>,
    /// The order of the cursors within an id.
    order: Vec<Uuid>,
}

impl MultiViewer {
    fn new(hub: Arc<Hub>, filter: Filter, runs: Runs, after: &MultiCursor) -> Self {
        let mut viewer = Self {
            hub,
            filter,
            viewers: Vec::new(),
            cursors: HashMap::new(),
            order: Vec::new(),
        };
        for run in runs.ended {
            viewer.cursors.insert(run, after.of(run));
            viewer.order.push(run);
        }
        for run in runs.live {
            viewer.add(run, after.of(run));
        }
        viewer
    }

    /// Follows one more run, if there is room and it was not followed before.
    fn add(&mut self, run: Uuid, after: EventId) {
        if self.viewers.len() >= MAX_WATCHED_RUNS || self.cursors.contains_key(&run) {
            return;
        }
        self.cursors.insert(run, after);
        self.order.push(run);
        let request = StreamRequest {
            after,
            filter: self.filter.clone(),
        };
        let watch = self.hub.watch(run);
        self.viewers
            .push(Viewer::new(Arc::clone(&self.hub), watch, request));
    }

    /// Follows the runs that were created since.
    async fn discover(&mut self, discovery: &mut impl RunDiscovery) {
        match discovery.find_runs().await {
            Ok(runs) => runs
                .into_iter()
                .for_each(|run| self.add(run, EventId::ZERO)),
            Err(error) => debug!(%error, "cannot look for new runs; trying again later"),
        }
    }

    /// The next frames of all runs that have some.
    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        let mut index = 0;
        while index < self.viewers.len() {
            let viewer = &mut self.viewers[index];
            let run = viewer.run();
            match viewer.next(&mut SelectionCache::default()) {
                Next::Frames(selection) => {
                    for piece in &*selection.pieces {
                        self.write_frames(&mut out, run, piece);
                    }
                    self.viewers[index].advance_to(selection.upto);
                    self.cursors.insert(run, selection.upto);
                }
                Next::Notice(frame) => self.write_frames(&mut out, run, &frame),
                Next::Last(frame) => {
                    self.write_frames(&mut out, run, &frame);
                    self.viewers.remove(index);
                    continue;
                }
                Next::Wait => {}
            }
            index += 1;
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Writes whole frames of a run, each with the run in its data and the cursors of all runs as
    /// its id.
    fn write_frames(&mut self, out: &mut Vec<u8>, run: Uuid, frames: &[u8]) {
        const DATA_FIELD: &[u8] = b"\ndata: {";
        const ID_FIELD: &[u8] = b"\nid: ";
        const UPDATE_EVENT: &[u8] = b"event: state\n";
        let mut rest = frames;
        while let Some(end) = memmem::find(rest, b"\n\n") {
            let (frame, behind) = (&rest[..end], &rest[end + 2..]);
            rest = behind;
            let (Some(data), Some(id)) = (
                memmem::find(frame, DATA_FIELD),
                memmem::rfind(frame, ID_FIELD),
            ) else {
                tracing::error!(%run, "dropped a frame without data or id");
                continue;
            };
            let (data, own_id) = (data + DATA_FIELD.len(), &frame[id + ID_FIELD.len()..]);
            if let Some(own_id) = std::str::from_utf8(own_id)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                self.cursors.insert(run, own_id);
            }
            out.extend_from_slice(&frame[..data]);
            // An update of a run names it already.
            if !frame.starts_with(UPDATE_EVENT) {
                out.extend_from_slice(format!("\"run\":\"{run}\",").as_bytes());
            }
            out.extend_from_slice(&frame[data..id]);
            out.extend_from_slice(format!("\nid: {}\n\n", self.id()).as_bytes());
        }
    }

    fn id(&self) -> String {
        let cursors = self
            .order
            .iter()
            .filter_map(|run| Some((*run, *self.cursors.get(run)?)));
        multi_cursor::encode(cursors)
    }

    /// A frame that belongs to no run.
    fn frame(&self, name: &str, data: &serde_json::Value) -> Bytes {
        format!("event: {name}\ndata: {data}\nid: {}\n\n", self.id()).into()
    }

    /// The last frame of a viewer that is closed although its runs go on.
    fn closing(&self, reason: &str) -> Bytes {
        let frame = self.frame("closing", &json!({"kind": "closing", "reason": reason}));
        [retry_spread().as_bytes(), &frame].concat().into()
    }
}
