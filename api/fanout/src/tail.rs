//! One tail per watched run: it alone reads on, however many viewers there are.
//!
//! A tail begins at the end of the run as it is when the first viewer comes, and fills the ring from
//! there; pages of what is older it keeps for those who ask. What a bell brings goes into the ring if it continues it;
//! otherwise the tail looks when the bell rings, and every [`LOOK_EVERY`] in case a bell was lost. It ends [`LINGER`]
//! after its last viewer has left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::presence::heartbeat::Heartbeat;
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::entry::Entry;
use runcast_common::protocol::event_id::EventId;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use uuid::Uuid;

use super::backfill::Backfill;
use super::frame::{Encoder, Frames};
use super::heartbeats::LatestHeartbeats;
use super::memory::MemoryGuard;
use super::ring::{Lookup, Ring};
use super::run_updates::LatestUpdates;
use crate::read_frames::{ReadBatch, read_frames};
use runcast_history::archive::reader as archive;
use runcast_history::reader::{ReadError, ReadLimit, Reader};

/// How often a tail looks although no bell rang.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often it looks while Redis is down and new events can only come out of Postgres.
const LOOK_EVERY_DEGRADED: Duration = Duration::from_secs(1);

/// How long a tail without viewers stays: viewers who reconnect find the ring as they left it.
const LINGER: Duration = Duration::from_secs(30);

/// How long what is known of a run's end is told to viewers: those who come at once are asked for once.
const END_LASTS: Duration = Duration::from_secs(1);

/// What the settle script rings when more of a run is stored, but not all of an ended one.
const STORED: &[u8] = b"stored";

/// Is notified when a run has something new for its viewers.
pub(crate) trait TailListener: std::fmt::Debug + Send + Sync {
    /// There is something new for the viewers of this run.
    fn changed(&self, run: Uuid);
}

/// The live end of one run.
#[derive(Debug)]
pub struct RunTail {
    run: Uuid,
    memory: Arc<MemoryGuard>,
    /// Rung by the bell, and when a viewer comes or goes.
    pub(super) wake: Arc<Notify>,
    viewers: AtomicUsize,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Notified of every change.
    listeners: Mutex<Vec<Arc<dyn TailListener>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Absent until the tail knows where the run ends.
    ring: Option<Ring>,
    older: Backfill,
    ended: bool,
    degraded: Option<Degraded>,
    /// Why what is older cannot be read at the moment.
    older_fails: Option<Degraded>,
    pulses: LatestHeartbeats,
    states: LatestUpdates,
    end: End,
}

/// What is known of how the run has ended.
#[derive(Debug, Default)]
enum End {
    #[default]
    Unknown,
    Asked,
    Told(Instant, Arc<Value>),
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
pub struct TailView {
    /// What comes behind its cursor.
    pub lookup: Lookup,
    /// Where the run has ended, if it has.
    pub end: Option<EventId>,
    /// What is missing at the moment.
    pub degraded: Option<Degraded>,
    /// The number of the newest sign of life.
    pub pulse: u64,
    /// The number of the newest update.
    pub state: u64,
}

impl RunTail {
    pub(super) fn new(run: Uuid, memory: Arc<MemoryGuard>) -> Self {
        Self {
            run,
            memory,
            wake: Arc::new(Notify::new()),
            viewers: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            listeners: Mutex::default(),
        }
    }

    /// The run.
    #[must_use]
    pub const fn run_id(&self) -> Uuid {
        self.run
    }

    /// What there is for a viewer at `cursor`.
    #[must_use]
    pub fn view(&self, cursor: EventId) -> TailView {
        let state = self.lock();
        let (lookup, end) = match &state.ring {
            Some(ring) => (ring.lookup(cursor), state.ended.then(|| ring.end())),
            None => (Lookup::Unknown, None),
        };
        let (lookup, degraded) = match lookup {
            Lookup::Behind => match state.older.lookup(cursor) {
                Some(page) => (Lookup::Next(vec![page]), state.degraded.clone()),
                None => (Lookup::Behind, state.older_fails.clone()),
            },
            lookup => (lookup, state.degraded.clone()),
        };
        TailView {
            lookup,
            end,
            degraded,
            pulse: state.pulses.newest(),
            state: state.states.newest(),
        }
    }

    /// How much the caller shall read from `cursor`, for all who stand there; nothing if others do.
    pub(super) fn begin_older(&self, cursor: EventId) -> Option<ReadLimit> {
        self.lock().older.begin(cursor)
    }

    /// A read from `cursor` has given these, which lie before the ring.
    pub(super) fn older(&self, cursor: EventId, frames: Frames, entries: usize) {
        let most = self.memory.share();
        let mut state = self.lock();
        state.older.done(cursor);
        state.older.keep(frames, entries, most);
        state.older_fails = None;
        drop(state);
        self.tell();
    }

    /// A read from `cursor` has given nothing, or was given up.
    pub(super) fn nothing_older(&self, cursor: EventId) {
        self.lock().older.done(cursor);
        self.tell();
    }

    /// A read of what is older has failed; it is being tried again.
    pub(super) fn older_fails(&self, error: &ReadError) {
        let why = Some(Degraded::because(error));
        let mut state = self.lock();
        if state.older_fails != why {
            state.older_fails = why;
            drop(state);
            self.tell();
        }
    }

    /// Keeps no more than so many bytes.
    pub(super) fn shrink_to(&self, most: usize) {
        let mut state = self.lock();
        state.older.clear();
        if let Some(ring) = &mut state.ring {
            ring.shrink_to(most);
        }
    }

    /// The last id of the run that the tail knows.
    pub(super) fn newest(&self) -> Option<EventId> {
        self.lock().ring.as_ref().map(Ring::end)
    }

    /// How the run has ended, if that was asked for just now.
    pub(super) fn end(&self) -> Option<Arc<Value>> {
        match &self.lock().end {
            End::Told(at, end) if at.elapsed() < END_LASTS => Some(Arc::clone(end)),
            _ => None,
        }
    }

    /// True if the caller shall ask how the run has ended.
    pub(super) fn begin_end(&self) -> bool {
        let mut state = self.lock();
        let asks = !matches!(state.end, End::Asked);
        if asks {
            state.end = End::Asked;
        }
        asks
    }

    /// So the run has ended; or nobody could tell.
    pub(super) fn told_end(&self, end: Option<Value>) {
        self.lock().end = match end {
            Some(end) => End::Told(Instant::now(), Arc::new(end)),
            None => End::Unknown,
        };
        self.tell();
    }

    /// The last sign of life of each agent whose number is above this one.
    #[must_use]
    pub fn pulses_after(&self, number: u64) -> Vec<Heartbeat> {
        self.lock().pulses.after(number)
    }

    /// The last updates whose number is above this one.
    #[must_use]
    pub fn states_after(&self, number: u64) -> Vec<RunUpdate> {
        self.lock().states.after(number)
    }

    /// Something about the run has changed that is no event of it.
    pub(super) fn learn(&self, message: &[u8]) {
        if self.lock().states.take(message) {
            self.tell();
        } else {
            debug!(run = %self.run, "an update cannot be read");
        }
    }

    /// An agent of the run has given a sign of life.
    pub(super) fn hear(&self, message: &[u8]) {
        if self.lock().pulses.take(message, Instant::now()) {
            self.tell();
        } else {
            debug!(run = %self.run, "a sign of life cannot be read");
        }
    }

    /// Told of every change of what [`RunTail::view`] answers.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Notifies this listener of every change from now on.
    pub(super) fn attach(&self, listener: Arc<dyn TailListener>) {
        self.listeners().push(listener);
    }

    /// Notifies this listener no more.
    pub(super) fn detach(&self, listener: &Arc<dyn TailListener>) {
        self.listeners().retain(|one| !Arc::ptr_eq(one, listener));
    }

    /// Tells all who watch that [`RunTail::view`] answers something new.
    fn tell(&self) {
        self.changed.send_replace(());
        for listener in self.listeners().iter() {
            listener.changed(self.run);
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn TailListener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// The bell has rung. What rode on it is taken if it continues the ring; whatever else it may mean is looked up.
    pub(super) fn ring(&self, message: &[u8]) {
        let is_done = match Entry::from_bell(message) {
            Some(entry) => self.take_entry(&entry),
            // Viewers have no use for what is stored, until it is all that there is.
            None => message == STORED,
        };
        if !is_done {
            self.wake.notify_one();
        }
    }

    /// True if the ring holds the entry now.
    fn take_entry(&self, entry: &Entry) -> bool {
        let first = entry.first();
        let after = EventId::new(first.epoch, first.seq - 1);
        let mut encoder = Encoder::new(after);
        for event in entry.events() {
            encoder.event(&event);
        }
        let mut state = self.lock();
        let State {
            ring,
            degraded,
            ended,
            ..
        } = &mut *state;
        match ring {
            Some(ring) if ring.end() == after && degraded.is_none() => {
                ring.push(encoder.finish(), self.memory.share());
                *ended = false;
            }
            Some(ring) => return ring.end() >= entry.last,
            None => return false,
        }
        drop(state);
        self.tell();
        true
    }

    /// Follows the run until nobody watches it any more.
    pub(super) async fn follow(&self, reader: &Reader) {
        let mut cursor = self.find_end(reader).await;
        let mut backoff = Backoff::for_connections();
        let mut unwatched_since = None;
        loop {
            let wait = match read_frames(reader, self.run, cursor, ReadLimit::WIDE).await {
                Ok(piece) => {
                    backoff.reset();
                    let (more, degraded) = (
                        !piece.status.caught_up,
                        piece.status.without_redis.is_some(),
                    );
                    let (end, fits) = self.take(piece);
                    cursor = end;
                    match (more || !fits, degraded) {
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
                    self.tell();
                    return end;
                }
                Err(error) => self.fail(&error),
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// Where the ring ends now, and whether the piece still fitted: a bell may have brought something meanwhile.
    fn take(&self, piece: ReadBatch) -> (EventId, bool) {
        let mut state = self.lock();
        if let Some(ring) = &state.ring
            && ring.end() != piece.frames.after
        {
            return (ring.end(), false);
        }
        let upto = piece.frames.upto;
        let degraded = piece.status.without_redis.map(|reason| {
            if state.degraded.is_none() {
                warn!(run = %self.run, reason, "following what Postgres stores");
            }
            WITHOUT_REDIS
        });
        let grown = piece.frames.upto > piece.frames.after;
        let changed = grown || state.ended != piece.status.ended || state.degraded != degraded;
        if let (true, Some(ring)) = (grown, &mut state.ring) {
            ring.push(piece.frames, self.memory.share());
        }
        state.ended = piece.status.ended;
        state.degraded = degraded;
        drop(state);
        if changed {
            self.tell();
        }
        (upto, true)
    }

    fn fail(&self, error: &ReadError) {
        let degraded = Some(Degraded::because(error));
        let mut state = self.lock();
        if state.degraded != degraded {
            warn!(run = %self.run, %error, "cannot read on");
            state.degraded = degraded;
            drop(state);
            self.tell();
        } else {
            debug!(run = %self.run, %error, "still cannot read on");
        }
    }
}
