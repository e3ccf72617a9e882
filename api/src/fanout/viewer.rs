//! One viewer: a cursor that moves along a run, and the bytes it passes on its way.
//!
//! A viewer takes batches from the ring while its cursor is inside, and reads for itself while it is
//! behind. It has no queue: as long as its socket takes nothing, it asks for nothing. Between two
//! events it sends a keep-alive every [`KEEP_ALIVE`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::event::Kind;
use runcast_common::id::EventId;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::frame::{Filter, Frames, notice};
use super::ring::Lookup;
use super::tail::Degraded;
use super::{Hub, Watch};

/// Proxies cut connections that are silent for 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment without the blank line that would end an event: it can never be taken for one.
const KEEP_ALIVE_LINE: &[u8] = b":\n";

/// How soon a client is asked to come back after a connection that broke by itself.
const RETRY: Duration = Duration::from_secs(1);

/// Over what time clients are spread who have to reconnect because this server drains.
const DRAIN_WINDOW: Duration = Duration::from_secs(5);

/// How long a viewer that has caught up otherwise waits before it looks at the tail again: a
/// safeguard, since every change of the tail wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What a viewer asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Everything behind this id.
    pub after: EventId,
    /// Only these channels.
    pub filter: Filter,
}

/// What a viewer has got so far.
struct Viewer {
    hub: Arc<Hub>,
    watch: Watch,
    filter: Filter,
    cursor: EventId,
    ready: bool,
    told: Option<Degraded>,
    /// The number of the newest sign of life that it was told.
    pulse: u64,
}

/// What to do next.
enum Step {
    /// Send these, then look again.
    Send(Vec<Bytes>),
    /// Send this, and no more.
    Last(Bytes),
    /// Nothing is new.
    Wait,
    /// The server is being stopped.
    Drain,
}

/// The bytes of an SSE response: the run from the cursor on, until it ends, the server drains, or the
/// client goes.
pub fn follow(hub: Arc<Hub>, watch: Watch, request: Request) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let stop = hub.stop().clone();
        let mut changes = watch.changes();
        let mut viewer = Viewer {
            hub,
            watch,
            filter: request.filter,
            cursor: request.after,
            ready: false,
            told: None,
            pulse: 0,
        };
        // The client learns how soon to come back with the first frame, which always comes.
        let mut prefix = Some(format!("retry: {}\n", RETRY.as_millis()));
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        loop {
            changes.mark_unchanged();
            let step = {
                let mut step = pin!(viewer.step());
                loop {
                    tokio::select! {
                        step = &mut step => break step,
                        () = stop.cancelled() => break Step::Drain,
                        () = sleep_until(keep_alive) => {
                            keep_alive = Instant::now() + KEEP_ALIVE;
                            yield Bytes::from_static(KEEP_ALIVE_LINE);
                        }
                    }
                }
            };
            match step {
                Step::Send(pieces) => {
                    for piece in pieces {
                        yield match prefix.take() {
                            Some(prefix) => join(&prefix, &piece),
                            None => piece,
                        };
                    }
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    continue;
                }
                Step::Last(piece) => {
                    yield join(&prefix.take().unwrap_or_default(), &piece);
                    return;
                }
                Step::Drain => {
                    yield closing(viewer.cursor);
                    return;
                }
                Step::Wait => {}
            }
            tokio::select! {
                changed = timeout(LOOK_EVERY, changes.changed()) => {
                    if let Ok(Err(_)) = changed {
                        yield closing(viewer.cursor);
                        return;
                    }
                }
                () = stop.cancelled() => {
                    yield closing(viewer.cursor);
                    return;
                }
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
            }
        }
    }
}

impl Viewer {
    async fn step(&mut self) -> Step {
        let view = self.watch.view(self.cursor);
        // Behind the ring a viewer reads for itself, and says for itself what is missing.
        if !matches!(view.lookup, Lookup::Behind) && view.degraded != self.told {
            self.told.clone_from(&view.degraded);
            // `ready` comes again when it is over.
            self.ready = false;
            if let Some(degraded) = view.degraded {
                return Step::Send(vec![self.degraded(&degraded)]);
            }
        }
        match view.lookup {
            Lookup::Next(frames) => self.pass(&frames),
            Lookup::Behind => self.read().await,
            Lookup::CaughtUp if view.end.is_some_and(|end| self.cursor >= end) => {
                Step::Last(self.end().await)
            }
            Lookup::CaughtUp if !self.ready && self.told.is_none() => {
                self.ready = true;
                let data = json!({"kind": "ready"});
                Step::Send(vec![notice("ready", &data, self.cursor)])
            }
            Lookup::CaughtUp if view.pulse > self.pulse => self.pulses(view.pulse),
            Lookup::CaughtUp => Step::Wait,
        }
    }

    fn pass(&mut self, frames: &Frames) -> Step {
        let pieces = frames.select(self.cursor, &self.filter);
        self.cursor = frames.upto;
        Step::Send(pieces)
    }

    /// Signs of life are of the moment: they are only for viewers that have caught up with it.
    fn pulses(&mut self, newest: u64) -> Step {
        let pulses = self.watch.pulses_after(self.pulse);
        self.pulse = newest;
        let wanted = pulses
            .iter()
            .filter(|pulse| self.filter.wants(Kind::Heartbeat, pulse.variation));
        let frames = wanted.map(|pulse| notice(Kind::Heartbeat.name(), pulse, self.cursor));
        Step::Send(frames.collect())
    }

    /// Reads for itself until it finds something; while that needs Postgres or the archive and it is down, it
    /// says so once and keeps trying.
    async fn read(&mut self) -> Step {
        let mut backoff = Backoff::for_connections();
        loop {
            match self
                .hub
                .reader()
                .read(self.watch.run_id(), self.cursor)
                .await
            {
                Ok(piece) if piece.frames.upto > self.cursor => return self.pass(&piece.frames),
                // The tail does not know yet where the run ends, or the cursor is beyond it.
                Ok(piece) if piece.ended => return Step::Last(self.end().await),
                Ok(_) if matches!(self.watch.view(self.cursor).lookup, Lookup::Behind) => {}
                Ok(_) => return Step::Send(Vec::new()),
                Err(error) => {
                    debug!(run = %self.watch.run_id(), %error, "a viewer cannot read on");
                    let degraded = Degraded::because(&error);
                    if self.told.as_ref() != Some(&degraded) {
                        self.ready = false;
                        let notice = self.degraded(&degraded);
                        self.told = Some(degraded);
                        return Step::Send(vec![notice]);
                    }
                }
            }
            sleep(backoff.next_wait()).await;
        }
    }

    fn degraded(&self, degraded: &Degraded) -> Bytes {
        let data = json!({"kind": "degraded", "what": degraded.what, "message": degraded.message});
        notice("degraded", &data, self.cursor)
    }

    /// The last frame: how the run ended, as far as Postgres can say at this moment.
    async fn end(&self) -> Bytes {
        let run = self.hub.reader().run(self.watch.run_id()).await;
        let data = match run {
            Ok(Some(run)) => json!({
                "kind": "end", "status": run.status, "sealed": run.sealed, "events": run.events,
                "missing": run.variations.iter().filter_map(|one| one.missing).sum::<u64>(),
            }),
            Ok(None) => json!({"kind": "end", "status": "deleted"}),
            Err(error) => {
                debug!(%error, "the end of a run is told without its details");
                json!({"kind": "end"})
            }
        };
        notice("end", &data, self.cursor)
    }
}

/// The server drains: come back, each at another moment, to another one.
fn closing(cursor: EventId) -> Bytes {
    let window = u64::try_from(DRAIN_WINDOW.as_millis()).unwrap_or(u64::MAX);
    let retry = format!("retry: {}\n", rand::rng().random_range(100..=window));
    let data = json!({"kind": "closing", "reason": "this server is being stopped"});
    join(&retry, &notice("closing", &data, cursor))
}

fn join(prefix: &str, piece: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(prefix.len() + piece.len());
    out.put_slice(prefix.as_bytes());
    out.put_slice(piece);
    out.freeze()
}
