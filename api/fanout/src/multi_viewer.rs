//! A viewer of several runs on one connection.
//!
//! Its frames are those of the runs, one run after the other in turn; what is told of is added to the data as `run`, and
//! the id tells how far it is in each of them (see [`multi_cursor`]), so that each of them is resumed exactly. A run that has ended
//! says so and is followed no more, and others may be added at any time.
//!
//! Data: a cursor for each run; nothing else is kept. Time: a keep-alive after [`KEEP_ALIVE`] of silence; new runs are looked
//! for every [`LOOK_EVERY`], if they may come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use futures::future::select_all;
use memchr::memmem;
use runcast_common::protocol::event_id::EventId;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use uuid::Uuid;

use runcast_access::open_streams::StreamRegistration;

use super::hub::Hub;
use super::memory::TOO_LITTLE;
use super::multi_cursor::{self, MultiCursor};
use super::viewer::{Next, SelectionCache, StreamRequest, Viewer};
use crate::sse::{DRAINS, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE};
use runcast_history::filter::Filter;

/// How often runs are looked for that have come since.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs that one viewer may watch at a time.
pub const MOST_RUNS: usize = 64;

/// Gives runs to watch that were not given before: those that are new.
pub trait RunDiscovery: Send {
    /// Looks for them. An error is told nobody: the next look may do.
    fn look(&mut self)
    -> impl Future<Output = Result<Vec<Uuid>, runcast_store::StoreError>> + Send;
}

/// Nobody joins later.
#[derive(Debug, Clone, Copy)]
pub struct NoDiscovery;

impl RunDiscovery for NoDiscovery {
    async fn look(&mut self) -> Result<Vec<Uuid>, runcast_store::StoreError> {
        std::future::pending().await
    }
}

/// What is watched.
struct MultiViewer {
    hub: Arc<Hub>,
    filter: Filter,
    viewers: Vec<Viewer>,
    /// Those of runs that have ended too: who comes back must not be shown them again.
    cursors: HashMap<Uuid, EventId>,
    order: Vec<Uuid>,
}

/// Runs to watch.
#[derive(Debug, Default)]
pub struct Runs {
    /// To be followed.
    pub live: Vec<Uuid>,
    /// Over, and shown to the end before.
    pub over: Vec<Uuid>,
}

/// The bytes of an SSE response: these runs from the cursors on, and those that come later, until all have ended and none
/// can come, the server drains, what they were opened by ends, it has to go for want of memory, or the client goes.
pub fn bytes(
    hub: Arc<Hub>,
    runs: Runs,
    after: MultiCursor,
    filter: Filter,
    mut newcomers: Option<impl RunDiscovery>,
    opened: StreamRegistration,
) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let stop = hub.stop().clone();
        let mut shedding = hub.shedding();
        let mut many = MultiViewer {
            hub,
            filter,
            viewers: Vec::new(),
            cursors: HashMap::new(),
            order: Vec::new(),
        };
        for run in runs.over {
            many.cursors.insert(run, after.of(run));
            many.order.push(run);
        }
        for run in runs.live {
            many.add(run, after.of(run));
        }
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        let mut look_at = Instant::now() + LOOK_EVERY;
        yield Bytes::from_static(RETRY_LINE);
        if many.viewers.is_empty() && newcomers.is_some() {
            // There is no run yet that would say so, and the line before stands in a frame that has to end.
            yield many.frame("ready", &json!({"kind": "ready"}));
        }
        loop {
            if shedding.has_to_go() {
                yield many.closing(TOO_LITTLE);
                return;
            }
            // Registered before it is looked, so that nothing comes unseen in between.
            let mut changes: Vec<_> = many.viewers.iter().map(Viewer::changes).collect();
            if let Some(frames) = many.next() {
                yield frames;
                keep_alive = Instant::now() + KEEP_ALIVE;
                if !stop.is_cancelled() && opened.ending().is_none() {
                    continue;
                }
            }
            if many.viewers.is_empty() && newcomers.is_none() {
                yield many.frame("end", &json!({"kind": "end"}));
                return;
            }
            let changed = async {
                match changes.is_empty() {
                    true => std::future::pending().await,
                    false => drop(select_all(changes.iter_mut().map(|one| Box::pin(one.changed()))).await),
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield many.closing(DRAINS);
                    return;
                }
                ending = opened.ended() => {
                    yield many.closing(ending.reason());
                    return;
                }
                () = shedding.round() => {}
                () = changed => {}
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
                () = sleep_until(look_at), if newcomers.is_some() => {
                    look_at = Instant::now() + LOOK_EVERY;
                    if let Some(newcomers) = &mut newcomers {
                        match newcomers.look().await {
                            Ok(runs) => runs.into_iter().for_each(|run| many.add(run, EventId::ZERO)),
                            Err(error) => debug!(%error, "new runs cannot be looked for"),
                        }
                    }
                }
            }
        }
    }
}

impl MultiViewer {
    /// Follows one more run, if there is room and it was not followed before.
    fn add(&mut self, run: Uuid, after: EventId) {
        if self.viewers.len() >= MOST_RUNS || self.cursors.contains_key(&run) {
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

    /// What comes next, of all runs that have something.
    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < self.viewers.len() {
            let viewer = &mut self.viewers[at];
            let run = viewer.run();
            match viewer.next(&mut SelectionCache::default()) {
                Next::Frames(selection) => {
                    for piece in &*selection.pieces {
                        self.put(&mut out, run, piece);
                    }
                    self.viewers[at].reached(selection.upto);
                    self.cursors.insert(run, selection.upto);
                }
                Next::Notice(frame) => self.put(&mut out, run, &frame),
                Next::Last(frame) => {
                    self.put(&mut out, run, &frame);
                    self.viewers.remove(at);
                    continue;
                }
                Next::Wait => {}
            }
            at += 1;
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Adds whole frames of a run, each with the run in its data and with an id that tells of all.
    fn put(&mut self, out: &mut Vec<u8>, run: Uuid, frames: &[u8]) {
        const DATA: &[u8] = b"\ndata: {";
        const ID: &[u8] = b"\nid: ";
        let mut rest = frames;
        while let Some(end) = memmem::find(rest, b"\n\n") {
            let (frame, behind) = (&rest[..end], &rest[end + 2..]);
            rest = behind;
            let (Some(data), Some(id)) = (memmem::find(frame, DATA), memmem::rfind(frame, ID))
            else {
                tracing::error!(%run, "a frame without data or id");
                continue;
            };
            let (data, own_id) = (data + DATA.len(), &frame[id + ID.len()..]);
            if let Some(own_id) = std::str::from_utf8(own_id)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                self.cursors.insert(run, own_id);
            }
            out.extend_from_slice(&frame[..data]);
            out.extend_from_slice(format!("\"run\":\"{run}\",").as_bytes());
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

    /// A frame of no run.
    fn frame(&self, name: &str, data: &serde_json::Value) -> Bytes {
        format!("event: {name}\ndata: {data}\nid: {}\n\n", self.id()).into()
    }

    fn closing(&self, reason: &str) -> Bytes {
        let frame = self.frame("closing", &json!({"kind": "closing", "reason": reason}));
        [crate::sse::retry_spread().as_bytes(), &frame]
            .concat()
            .into()
    }
}
