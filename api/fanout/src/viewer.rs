//! One viewer: a cursor that moves along a run, and what is to be sent to it next.
//!
//! A viewer is given batches of the ring while its cursor is inside, and pages of what is older while it is behind. It
//! has no queue: as long as its connection takes nothing, it asks for nothing. Nothing here waits or writes; that is
//! done by [`delivery`](super::delivery) for plain sockets, and by [`bytes`](super::bytes) for all others.

use std::any::Any;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::frame::{Frames, notice};
use super::hub::{Hub, TailHandle};
use super::ring::Lookup;
use super::tail::Degraded;
use crate::sse::retry_spread;
use runcast_access::open_streams::StreamRegistration;
use runcast_access::rate_limit::concurrency::Permit;
use runcast_history::filter::Filter;

/// Pieces of shared memory that are sent as they are; more of them, as a filter leaves behind, are put together first.
const PIECES: usize = 16;

/// What a viewer asks for.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// Everything behind this id.
    pub after: EventId,
    /// Only these channels.
    pub filter: Filter,
}

/// What a viewer has got so far.
#[derive(Debug)]
pub struct Viewer {
    hub: Arc<Hub>,
    watch: TailHandle,
    filter: Filter,
    cursor: EventId,
    ready: bool,
    told: Option<Degraded>,
    /// The number of the newest sign of life that it was told.
    pulse: u64,
    /// The number of the newest update that it was told, or that was there before it.
    state: u64,
    /// What it takes up as long as it is there.
    held: ViewerPermits,
}

/// What is given back when a viewer is gone.
#[derive(Debug, Default)]
pub struct ViewerPermits {
    /// One of the streams that its principal and its address may have open.
    pub place: Option<Permit>,
    /// What it was let in by.
    pub opened: Option<StreamRegistration>,
    /// One of the connections that the process may have.
    pub connection: Option<Box<dyn Any + Send>>,
}

/// What to do for a viewer next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send these frames, then say that the viewer has [`reached`](Viewer::reached) their end.
    Frames(Selection),
    /// Send this.
    Notice(Bytes),
    /// Send this, and no more.
    Last(Bytes),
    /// Nothing, until the tail changes.
    Wait,
}

/// Frames for all viewers at one cursor who want the same.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) pieces: Arc<[Bytes]>,
    pub(super) upto: EventId,
}

/// The last selection of a round, which the next viewer of the same tail most likely needs as well.
#[derive(Debug, Default)]
pub(super) struct SelectionCache(Option<(EventId, Filter, Selection)>);

impl Viewer {
    /// A viewer of a run.
    #[must_use]
    pub fn new(hub: Arc<Hub>, watch: TailHandle, request: StreamRequest) -> Self {
        let state = watch.view(request.after).state;
        Self {
            hub,
            watch,
            filter: request.filter,
            cursor: request.after,
            ready: false,
            told: None,
            pulse: 0,
            state,
            held: ViewerPermits::default(),
        }
    }

    /// What it takes up.
    pub const fn held(&mut self) -> &mut ViewerPermits {
        &mut self.held
    }

    /// What it was let in by.
    pub(super) const fn opened(&self) -> Option<&StreamRegistration> {
        self.held.opened.as_ref()
    }

    /// The run.
    pub(super) fn run(&self) -> Uuid {
        self.watch.run_id()
    }

    /// What it watches.
    pub(super) const fn watch(&self) -> &TailHandle {
        &self.watch
    }

    /// The fan-out that it belongs to.
    pub(super) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Told of whatever may change what is next.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.watch.changes()
    }

    /// Up to here everything is sent. It may be less than was selected, if that was all that the connection took.
    pub(super) const fn reached(&mut self, id: EventId) {
        self.cursor = id;
    }

    /// How far it is behind the newest event, as seqs count; an older epoch is further than anything.
    pub(super) fn lag(&self) -> u64 {
        match self.watch.newest() {
            Some(newest) if newest.epoch == self.cursor.epoch => {
                newest.seq.saturating_sub(self.cursor.seq)
            }
            Some(newest) if newest > self.cursor => u64::MAX,
            _ => 0,
        }
    }

    /// What to do next. `memo` is of viewers of the same tail at the same moment.
    pub(super) fn next(&mut self, memo: &mut SelectionCache) -> Next {
        if let Some((cursor, filter, selection)) = &memo.0
            && (*cursor, filter) == (self.cursor, &self.filter)
            && self.told.is_none()
        {
            return Next::Frames(selection.clone());
        }
        let view = self.watch.view(self.cursor);
        if view.degraded != self.told {
            self.told.clone_from(&view.degraded);
            // `ready` comes again when it is over.
            self.ready = false;
            if let Some(degraded) = &view.degraded {
                return Next::Notice(self.degraded(degraded));
            }
        }
        match view.lookup {
            Lookup::Next(batches) => Next::Frames(self.select(&batches, memo)),
            Lookup::Behind => {
                self.hub.read_older(&self.watch, self.cursor);
                Next::Wait
            }
            Lookup::CaughtUp if view.end.is_some_and(|end| self.cursor >= end) => self.end(),
            Lookup::CaughtUp if !self.ready && self.told.is_none() => {
                self.ready = true;
                let data = json!({"kind": "ready"});
                Next::Notice(notice("ready", &data, self.cursor))
            }
            Lookup::CaughtUp if view.state > self.state => self.states(view.state),
            Lookup::CaughtUp if view.pulse > self.pulse => self.pulses(view.pulse),
            Lookup::CaughtUp | Lookup::Unknown => Next::Wait,
        }
    }

    fn select(&self, batches: &[Arc<Frames>], memo: &mut SelectionCache) -> Selection {
        let pieces = batches
            .iter()
            .flat_map(|batch| batch.select(self.cursor, &self.filter));
        let mut pieces: Vec<Bytes> = pieces.collect();
        if pieces.len() > PIECES {
            pieces = vec![pieces.concat().into()];
        }
        let selection = Selection {
            pieces: pieces.into(),
            upto: batches.last().map_or(self.cursor, |last| last.upto),
        };
        memo.0 = Some((self.cursor, self.filter.clone(), selection.clone()));
        selection
    }

    /// Signs of life are of the moment: they are only for viewers that have caught up with it.
    fn pulses(&mut self, newest: u64) -> Next {
        let pulses = self.watch.pulses_after(self.pulse);
        self.pulse = newest;
        let wanted = pulses
            .iter()
            .filter(|pulse| self.filter.wants(Kind::Heartbeat, pulse.variation));
        let frames = wanted.map(|pulse| notice(Kind::Heartbeat.name(), pulse, self.cursor));
        let frames: Vec<Bytes> = frames.collect();
        together(&frames)
    }

    /// So are updates: whoever comes later asks for the run.
    fn states(&mut self, newest: u64) -> Next {
        let states = self.watch.states_after(self.state);
        self.state = newest;
        let wanted = self.filter.wants_any(Kind::Status);
        let frames = states.iter().filter(|_| wanted);
        let frames = frames.map(|state| notice("state", state, self.cursor));
        let frames: Vec<Bytes> = frames.collect();
        together(&frames)
    }

    fn degraded(&self, degraded: &Degraded) -> Bytes {
        let data = json!({"kind": "degraded", "what": degraded.what, "message": degraded.message});
        notice("degraded", &data, self.cursor)
    }

    /// The last frame: how the run ended, as far as Postgres can say at this moment.
    fn end(&self) -> Next {
        match self.watch.end() {
            Some(end) => Next::Last(notice("end", &*end, self.cursor)),
            None => {
                self.hub.ask_end(&self.watch);
                Next::Wait
            }
        }
    }

    /// The last frame of a viewer that has to go although its run goes on: it comes back, each at another moment, here
    /// or to another server.
    pub(super) fn closing(&self, reason: &str) -> Bytes {
        let retry = retry_spread();
        let data = json!({"kind": "closing", "reason": reason});
        let frame = notice("closing", &data, self.cursor);
        let mut out = BytesMut::with_capacity(retry.len() + frame.len());
        out.put_slice(retry.as_bytes());
        out.put_slice(&frame);
        out.freeze()
    }
}

/// Frames in one piece, if there are any.
fn together(frames: &[Bytes]) -> Next {
    match frames.is_empty() {
        true => Next::Wait,
        false => Next::Notice(frames.concat().into()),
    }
}
