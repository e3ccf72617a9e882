//! One tail per watched run: it alone reads on, however many viewers there are.
//!
//! A tail begins at the end of the run as it is when the first viewer comes, and fills the ring from
//! there; what is older is each viewer's own business. It looks when the bell rings, and every
//! [`LOOK_EVERY`] in case a bell was lost. It ends [`LINGER`] after its last viewer has left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::id::EventId;
use runcast_common::pulse::Pulse;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use uuid::Uuid;

use super::pulses::Pulses;
use super::reader::{Piece, ReadError, Reader};
use super::ring::{Lookup, Ring};
use crate::archive::read as archive;

/// How often a tail looks although no bell rang.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often it looks while Redis is down and new events can only come out of Postgres.
const LOOK_EVERY_DEGRADED: Duration = Duration::from_secs(1);

/// How long a tail without viewers stays: viewers who reconnect find the ring as they left it.
const LINGER: Duration = Duration::from_secs(30);

/// The live end of one run.
#[derive(Debug)]
pub struct Tail {
    run: Uuid,
    /// Rung by the bell, and when a viewer comes or goes.
    pub(super) wake: Arc<Notify>,
    viewers: AtomicUsize,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Absent until the tail knows where the run ends.
    ring: Option<Ring>,
    ended: bool,
    degraded: Option<Degraded>,
    pulses: Pulses,
}

/// What is missing for the stream to be as quick as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    /// `redis`, `postgres` or `archive`.
    pub what: &'static str,
    /// In words, for a person.
    pub message: &'static str,
}

const WITHOUT_REDIS: Degraded = Degraded {
    what: "redis",
    message: "Redis cannot be reached: new events appear as they are stored",
};

const WITHOUT_POSTGRES: Degraded = Degraded {
    what: "postgres",
    message: "Postgres cannot be reached: older events are delayed",
};

const WITHOUT_ARCHIVE: Degraded = Degraded {
    what: "archive",
    message: "The archive cannot be reached: older events are delayed",
};

const DAMAGED_ARCHIVE: Degraded = Degraded {
    what: "archive",
    message: "The archive of this run is damaged: what follows cannot be read until it is repaired",
};

impl Degraded {
    /// What is missing when a read fails so.
    pub(super) fn because(error: &ReadError) -> Self {
        match error {
            ReadError::Archive(archive::ReadError::Store(_)) => WITHOUT_POSTGRES,
            ReadError::Archive(error) if error.is_outage() => WITHOUT_ARCHIVE,
            ReadError::Archive(_) => DAMAGED_ARCHIVE,
            ReadError::Store(_) | ReadError::NotEntries(_) => WITHOUT_POSTGRES,
        }
    }
}

/// What a viewer sees of the tail.
#[derive(Debug)]
pub struct View {
    /// What comes behind its cursor.
    pub lookup: Lookup,
    /// Where the run has ended, if it has.
    pub end: Option<EventId>,
    /// What is missing at the moment.
    pub degraded: Option<Degraded>,
    /// The number of the newest sign of life.
    pub pulse: u64,
}

impl Tail {
    pub(super) fn new(run: Uuid) -> Self {
        Self {
            run,
            wake: Arc::new(Notify::new()),
            viewers: AtomicUsize::new(0),
            state: Mutex::new(State {
                ring: None,
                ended: false,
                degraded: None,
                pulses: Pulses::default(),
            }),
            changed: watch::Sender::new(()),
        }
    }

    /// The run.
    #[must_use]
    pub const fn run_id(&self) -> Uuid {
        self.run
    }

    /// What there is for a viewer at `cursor`.
    #[must_use]
    pub fn view(&self, cursor: EventId) -> View {
        let state = self.lock();
        let (lookup, end) = match &state.ring {
            Some(ring) => (ring.lookup(cursor), state.ended.then(|| ring.end())),
            None => (Lookup::Behind, None),
        };
        View {
            lookup,
            end,
            degraded: state.degraded.clone(),
            pulse: state.pulses.newest(),
        }
    }

    /// The last sign of life of each agent whose number is above this one.
    #[must_use]
    pub fn pulses_after(&self, number: u64) -> Vec<Pulse> {
        self.lock().pulses.after(number)
    }

    /// An agent of the run has given a sign of life.
    pub(super) fn hear(&self, message: &[u8]) {
        if self.lock().pulses.take(message, Instant::now()) {
            self.changed.send_replace(());
        } else {
            debug!(run = %self.run, "a sign of life cannot be read");
        }
    }

    /// Told of every change of what [`Tail::view`] answers.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn arrive(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(super) fn depart(&self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(super) fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the run until nobody watches it any more.
    pub(super) async fn follow(&self, reader: &Reader) {
        let mut cursor = self.find_end(reader).await;
        let mut backoff = Backoff::for_connections();
        let mut unwatched_since = None;
        loop {
            let wait = match reader.read(self.run, cursor).await {
                Ok(piece) => {
                    backoff.reset();
                    cursor = piece.frames.upto;
                    let (more, degraded) = (!piece.caught_up, piece.without_redis.is_some());
                    self.take(piece);
                    match (more, degraded) {
                        (true, _) => continue,
                        (false, true) => LOOK_EVERY_DEGRADED,
                        (false, false) => LOOK_EVERY.mul_f64(rand::rng().random_range(0.8..1.2)),
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    backoff.next_wait()
                }
            };
            let leaves = if self.is_watched() {
                unwatched_since = None;
                wait
            } else {
                let since = *unwatched_since.get_or_insert_with(Instant::now);
                LINGER.saturating_sub(since.elapsed())
            };
            if leaves.is_zero() {
                return;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(wait.min(leaves)) => {}
            }
        }
    }

    /// Where the run ends now: the ring begins there.
    async fn find_end(&self, reader: &Reader) -> EventId {
        let mut backoff = Backoff::for_connections();
        loop {
            match reader.end(self.run).await {
                Ok(end) => {
                    self.lock().ring = Some(Ring::new(end));
                    self.changed.send_replace(());
                    return end;
                }
                Err(error) => self.fail(&error),
            }
            sleep(backoff.next_wait()).await;
        }
    }

    fn take(&self, piece: Piece) {
        let mut state = self.lock();
        let degraded = piece.without_redis.map(|reason| {
            if state.degraded.is_none() {
                warn!(run = %self.run, reason, "following what Postgres stores");
            }
            WITHOUT_REDIS
        });
        let grown = piece.frames.upto > piece.frames.after;
        let changed = grown || state.ended != piece.ended || state.degraded != degraded;
        if let (true, Some(ring)) = (grown, &mut state.ring) {
            ring.push(piece.frames);
        }
        state.ended = piece.ended;
        state.degraded = degraded;
        drop(state);
        if changed {
            self.changed.send_replace(());
        }
    }

    fn fail(&self, error: &ReadError) {
        let degraded = Some(Degraded::because(error));
        let mut state = self.lock();
        if state.degraded != degraded {
            warn!(run = %self.run, %error, "cannot read on");
            state.degraded = degraded;
            drop(state);
            self.changed.send_replace(());
        } else {
            debug!(run = %self.run, %error, "still cannot read on");
        }
    }
}
