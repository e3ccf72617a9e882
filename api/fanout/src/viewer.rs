//! One viewer: a cursor that moves along a run, and what to send to it next.
//!
//! A viewer gets batches of the ring while its cursor lies inside, and pages from before the ring
//! while it is behind. It has no queue: while its connection takes nothing, it asks for nothing.
//! Nothing here waits or writes: [`writer`](crate::writer) does that for plain sockets, and
//! [`body_stream`](crate::body_stream) for all other connections.
//!
//! All viewers of a run share one ring. A viewer with a filter gets pieces of the same frames,
//! which are selected once per round for all viewers with the same cursor and filter
//! ([`SelectionCache`]).

use std::any::Any;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use runcast_access::open_streams::StreamRegistration;
use runcast_access::rate_limit::concurrency::Permit;
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use runcast_history::filter::Filter;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use crate::degraded::Degraded;
use crate::frame::{Frames, notice};
use crate::hub::{Hub, TailHandle};
use crate::ring::Lookup;
use crate::sse::retry_spread;

/// Pieces of shared memory that are sent as they are. A filter may leave more: those are copied
/// into one.
const MAX_SHARED_PIECES: usize = 16;

/// What a viewer asks for.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// Only events after this id.
    pub after: EventId,
    /// Only events that this filter accepts.
    pub filter: Filter,
}

/// A viewer and how far it has got.
#[derive(Debug)]
pub struct Viewer {
    hub: Arc<Hub>,
    watch: TailHandle,
    filter: Filter,
    cursor: EventId,
    /// It was sent `ready`, and no outage has followed.
    is_ready: bool,
    /// The outage that it was last sent, if that goes on.
    degraded: Option<Degraded>,
    /// The number of the newest heartbeat that it was sent.
    heartbeat_number: u64,
    /// The number of the newest update that it was sent, or that is older than the viewer.
    update_number: u64,
    permits: ViewerPermits,
}

/// What a viewer occupies as long as it exists.
#[derive(Debug, Default)]
pub struct ViewerPermits {
    /// One of the streams that its principal and its address may have open.
    pub stream: Option<Permit>,
    /// Its registration with the credential that opened it.
    pub registration: Option<StreamRegistration>,
    /// One of the connections that the process may have. Only the HTTP server knows its type.
    pub connection: Option<Box<dyn Any + Send>>,
}

/// What to do for a viewer next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send these frames, then move the cursor by [`advance_to`](Viewer::advance_to).
    Frames(Selection),
    /// Send this frame.
    Notice(Bytes),
    /// Send this frame and close.
    Last(Bytes),
    /// Nothing, until the tail changes.
    Wait,
}

/// Frames for all viewers with the same cursor and the same filter.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) pieces: Arc<[Bytes]>,
    pub(crate) upto: EventId,
}

/// The last selection of a round, which the next viewer of the same tail most likely needs too.
#[derive(Debug, Default)]
pub(crate) struct SelectionCache(Option<(EventId, Filter, Selection)>);

impl Viewer {
    /// A viewer of the run that `watch` keeps.
    pub fn new(hub: Arc<Hub>, watch: TailHandle, request: StreamRequest) -> Self {
        let update_number = watch.view(request.after).update_number;
        Self {
            hub,
            watch,
            filter: request.filter,
            cursor: request.after,
            is_ready: false,
            degraded: None,
            heartbeat_number: 0,
            update_number,
            permits: ViewerPermits::default(),
        }
    }

    /// What it occupies.
    pub const fn permits(&mut self) -> &mut ViewerPermits {
        &mut self.permits
    }

    /// Its registration with the credential that opened it.
    pub(crate) const fn registration(&self) -> Option<&StreamRegistration> {
        self.permits.registration.as_ref()
    }

    pub(crate) fn run(&self) -> Uuid {
        self.watch.run_id()
    }

    pub(crate) const fn watch(&self) -> &TailHandle {
        &self.watch
    }

    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Changes whenever [`Viewer::next`] may return something new.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.watch.changes()
    }

    /// Moves the cursor to the last frame that was sent. That may lie before the end of the
    /// selection, if the connection took no more.
    pub(crate) const fn advance_to(&mut self, id: EventId) {
        self.cursor = id;
    }

    /// Events between the cursor and the newest event. A cursor in an older epoch is further behind
    /// than any other.
    pub(crate) fn lag(&self) -> u64 {
        match self.watch.last_id() {
            Some(last) if last.epoch == self.cursor.epoch => {
                last.seq.saturating_sub(self.cursor.seq)
            }
            Some(last) if last > self.cursor => u64::MAX,
            _ => 0,
        }
    }

    /// What to do next. `cache` is shared by viewers of the same tail in the same round.
    pub(crate) fn next(&mut self, cache: &mut SelectionCache) -> Next {
        // The viewer before this one may have had the same cursor and filter.
        if let Some((cursor, filter, selection)) = &cache.0
            && (*cursor, filter) == (self.cursor, &self.filter)
            && self.degraded.is_none()
        {
            return Next::Frames(selection.clone());
        }
        // The begin of an outage is sent first; `ready` follows when it is over.
        let view = self.watch.view(self.cursor);
        if view.deleted {
            return Next::Last(self.deleted_notice());
        }
        if view.degraded != self.degraded {
            self.degraded.clone_from(&view.degraded);
            self.is_ready = false;
            if let Some(degraded) = &view.degraded {
                return Next::Notice(self.degraded_notice(degraded));
            }
        }
        // Then events, and after those what concerns the present moment only.
        match view.lookup {
            Lookup::Next(batches) => Next::Frames(self.select(&batches, cache)),
            Lookup::Behind => {
                self.hub.start_backfill(&self.watch, self.cursor);
                Next::Wait
            }
            Lookup::CaughtUp if view.end.is_some_and(|end| self.cursor >= end) => self.end(),
            Lookup::CaughtUp if !self.is_ready && self.degraded.is_none() => {
                self.is_ready = true;
                let data = json!({"kind": "ready"});
                Next::Notice(notice("ready", &data, self.cursor))
            }
            Lookup::CaughtUp if view.update_number > self.update_number => {
                self.updates(view.update_number)
            }
            Lookup::CaughtUp if view.heartbeat_number > self.heartbeat_number => {
                self.heartbeats(view.heartbeat_number)
            }
            Lookup::CaughtUp | Lookup::Unknown => Next::Wait,
        }
    }

    fn select(&self, batches: &[Arc<Frames>], cache: &mut SelectionCache) -> Selection {
        let pieces = batches
            .iter()
            .flat_map(|batch| batch.select(self.cursor, &self.filter));
        let mut pieces: Vec<Bytes> = pieces.collect();
        if pieces.len() > MAX_SHARED_PIECES {
            pieces = vec![pieces.concat().into()];
        }
        let selection = Selection {
            pieces: pieces.into(),
            upto: batches.last().map_or(self.cursor, |last| last.upto),
        };
        cache.0 = Some((self.cursor, self.filter.clone(), selection.clone()));
        selection
    }

    /// New heartbeats. Only viewers that have caught up get them, since they concern the present.
    fn heartbeats(&mut self, newest: u64) -> Next {
        let heartbeats = self.watch.heartbeats_after(self.heartbeat_number);
        self.heartbeat_number = newest;
        let frames: Vec<Bytes> = heartbeats
            .iter()
            .filter(|one| self.filter.accepts_channel(Kind::Heartbeat, one.variation))
            .map(|one| notice(Kind::Heartbeat.name(), one, self.cursor))
            .collect();
        concatenated(&frames)
    }

    /// New updates. Only viewers that have caught up get them: one that comes later loads the run.
    fn updates(&mut self, newest: u64) -> Next {
        let updates = self.watch.updates_after(self.update_number);
        self.update_number = newest;
        if !self.filter.accepts_kind(Kind::Status) {
            return Next::Wait;
        }
        let frames: Vec<Bytes> = updates
            .iter()
            .map(|update| notice("state", update, self.cursor))
            .collect();
        concatenated(&frames)
    }

    fn degraded_notice(&self, degraded: &Degraded) -> Bytes {
        let data = json!({"kind": "degraded", "what": degraded.what, "message": degraded.message});
        notice("degraded", &data, self.cursor)
    }

    /// The last frames of a run that was deleted: its update, and the end.
    fn deleted_notice(&self) -> Bytes {
        let update = RunUpdate::deleted(self.run());
        let end = json!({"kind": "end", "status": update.status});
        let update = notice("state", &update, self.cursor);
        [update, notice("end", &end, self.cursor)].concat().into()
    }

    /// The last frame: how the run has ended, once that is loaded.
    fn end(&self) -> Next {
        match self.watch.end_status() {
            Some(status) => Next::Last(notice("end", &*status, self.cursor)),
            None => {
                self.hub.load_end_status(&self.watch);
                Next::Wait
            }
        }
    }

    /// The last frame of a viewer that is closed although its run goes on. Each viewer gets another
    /// delay after which to reconnect, here or to another gateway.
    pub(crate) fn closing(&self, reason: &str) -> Bytes {
        let retry = retry_spread();
        let data = json!({"kind": "closing", "reason": reason});
        let frame = notice("closing", &data, self.cursor);
        let mut out = BytesMut::with_capacity(retry.len() + frame.len());
        out.put_slice(retry.as_bytes());
        out.put_slice(&frame);
        out.freeze()
    }
}

/// All frames in one piece, if there are any.
fn concatenated(frames: &[Bytes]) -> Next {
    match frames.is_empty() {
        true => Next::Wait,
        false => Next::Notice(frames.concat().into()),
    }
}
