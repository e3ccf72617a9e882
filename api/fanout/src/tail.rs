//! One tail per watched run: only the tail reads on, however many viewers the run has.
//!
//! A tail begins at the id where the run ends when its first viewer comes, and fills the ring from
//! there. It ends [`LINGER`] after its last viewer has left.
//!
//! A wake-up is only a hint, since a publisher may send any bytes on the channel of its run. What
//! it says is never shown: the tail reads, and Redis says what is true. So an event that Redis does
//! not hold reaches no viewer, and each costs one read of the stream, well under a millisecond;
//! those that come during a read share the next. A wake-up that announces nothing new costs no
//! read. One that announces what Redis does not hold is counted, and the tail then waits before its
//! next read: [`MIN_VAIN_PAUSE`], longer each time, up to [`MAX_VAIN_PAUSE`]. In case a wake-up was
//! lost it reads every [`POLL_INTERVAL`].
//!
//! Data: `tail_state`, behind one lock, and the listeners. Listeners are notified after the lock is
//! released.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::presence::heartbeat::Heartbeat;
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::event_id::EventId;
use runcast_history::reader::{ReadError, ReadLimit, Reader};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::degraded::Degraded;
use crate::frame::Frames;
use crate::memory::MemoryGuard;
use crate::read_frames::read_frames;
use crate::ring::Ring;
use crate::tail_state::{Prompt, TailState, TailView};

/// How often a tail reads without a wake-up.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often it reads while Redis is down and new events only come out of Postgres.
const POLL_INTERVAL_DEGRADED: Duration = Duration::from_secs(1);

/// The pause after a wake-up that announced what Redis does not hold.
const MIN_VAIN_PAUSE: Duration = Duration::from_millis(5);

/// The same after many of them.
const MAX_VAIN_PAUSE: Duration = Duration::from_secs(1);

/// How long a tail without viewers stays: viewers that reconnect find the ring as they left it.
const LINGER: Duration = Duration::from_secs(30);

/// The wake-up that the settle script publishes when Postgres has stored more of the run. Once all
/// of an ended run is stored it publishes `sealed` instead, which makes the tail read.
const STORED_WAKEUP: &[u8] = b"stored";

/// Is notified when a run has something new for its viewers.
pub(crate) trait TailListener: std::fmt::Debug + Send + Sync {
    /// The run has something new.
    fn on_change(&self, run: Uuid);
}

/// The live end of one run.
#[derive(Debug)]
pub struct RunTail {
    run: Uuid,
    memory: Arc<MemoryGuard>,
    /// Makes [`RunTail::follow`] read at once.
    wake: Notify,
    viewers: AtomicUsize,
    state: Mutex<TailState>,
    changed: watch::Sender<()>,
    listeners: Mutex<Vec<Arc<dyn TailListener>>>,
    /// Wake-ups that announced what Redis does not hold.
    false_wakeups: Counter,
}

impl RunTail {
    pub(crate) fn new(run: Uuid, memory: Arc<MemoryGuard>, false_wakeups: Counter) -> Self {
        Self {
            run,
            memory,
            false_wakeups,
            wake: Notify::new(),
            viewers: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            listeners: Mutex::default(),
        }
    }

    /// The run.
    pub const fn run_id(&self) -> Uuid {
        self.run
    }

    /// Changes whenever a viewer may have something new to send.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What a viewer at `cursor` sees.
    pub(crate) fn view(&self, cursor: EventId) -> TailView {
        self.lock().view(cursor)
    }

    /// The last id of the run that the tail knows.
    pub(crate) fn last_id(&self) -> Option<EventId> {
        self.lock().ring.as_ref().map(Ring::end)
    }

    /// The last heartbeat of each agent whose number is above this one.
    pub(crate) fn heartbeats_after(&self, number: u64) -> Vec<Heartbeat> {
        self.lock().heartbeats.after(number)
    }

    /// The kept updates whose number is above this one.
    pub(crate) fn updates_after(&self, number: u64) -> Vec<RunUpdate> {
        self.lock().updates.after(number)
    }

    /// Keeps no more than `max_bytes`.
    pub(crate) fn shrink_to(&self, max_bytes: usize) {
        self.lock().shrink_to(max_bytes);
    }

    fn lock(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Viewers and listeners.
impl RunTail {
    /// Counts a viewer, for which the tail goes on reading.
    pub(crate) fn add_viewer(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Takes back one [`RunTail::add_viewer`].
    pub(crate) fn remove_viewer(&self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        self.wake();
    }

    /// True if the run has viewers.
    pub(crate) fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// Notifies this listener of every change from now on.
    pub(crate) fn attach(&self, listener: Arc<dyn TailListener>) {
        self.listeners().push(listener);
    }

    /// Notifies this listener no more.
    pub(crate) fn detach(&self, listener: &Arc<dyn TailListener>) {
        self.listeners().retain(|one| !Arc::ptr_eq(one, listener));
    }

    /// Notifies all viewers and listeners that [`RunTail::view`] returns something new.
    fn notify(&self) {
        self.changed.send_replace(());
        for listener in self.listeners().iter() {
            listener.on_change(self.run);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Arc<dyn TailListener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages of the run's channels.
impl RunTail {
    /// Makes the tail read at once.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Handles a wake-up: reads if it may announce something new.
    pub(crate) fn on_wakeup(&self, message: &[u8]) {
        // The id of the run's last event, alone or before the fields of its entry.
        let end = memchr::memchr(b'\n', message).unwrap_or(message.len());
        let prompt = match EventId::parse_bytes(&message[..end]) {
            Ok(id) => Prompt::Upto(id),
            Err(_) if message == STORED_WAKEUP => Prompt::Stored,
            Err(_) => Prompt::Other,
        };
        if self.lock().prompt(prompt) {
            self.wake();
        }
    }

    /// Handles an update of the run: a change that is no event of it.
    pub(crate) fn on_update(&self, message: &[u8]) {
        let mut state = self.lock();
        let Some(update) = state.updates.push(self.run, message) else {
            debug!(run = %self.run, "ignored an unreadable update");
            return;
        };
        if update.is_deleted() {
            state.set_deleted();
        } else if update.redacted {
            state.forget_events();
        }
        drop(state);
        self.notify();
    }

    /// Drops the events that are kept: an update that said that they changed may have been missed.
    pub(crate) fn forget_events(&self) {
        self.lock().forget_events();
        self.notify();
    }

    /// Handles a heartbeat of one of the run's agents.
    pub(crate) fn on_heartbeat(&self, message: &[u8]) {
        if self.lock().heartbeats.insert(message, Instant::now()) {
            self.notify();
        } else {
            debug!(run = %self.run, "ignored an unreadable heartbeat");
        }
    }
}

/// Events from before the ring, and the end status: what the hub loads for viewers.
impl RunTail {
    /// Returns how much the caller should read from `cursor`, for all viewers at that cursor. None
    /// if another read does that, or too many are under way.
    pub(crate) fn begin_backfill(&self, cursor: EventId) -> Option<ReadLimit> {
        self.lock().backfill.begin_read(cursor)
    }

    /// Ends the read from `cursor` with a page of frames; `redis_entries` of its entries came from
    /// Redis.
    pub(crate) fn add_backfill(&self, cursor: EventId, page: Frames, redis_entries: usize) {
        let max_bytes = self.memory.bytes_per_run();
        self.lock()
            .add_backfill(cursor, page, redis_entries, max_bytes);
        self.notify();
    }

    /// Ends the read from `cursor`, which found nothing or was cancelled.
    pub(crate) fn end_backfill(&self, cursor: EventId) {
        self.lock().backfill.end_read(cursor);
        self.notify();
    }

    /// Notes that a backfill read has failed. The hub retries it.
    pub(crate) fn backfill_failed(&self, error: &ReadError) {
        let is_new = self.lock().set_backfill_degraded(Degraded::from(error));
        if is_new {
            self.notify();
        }
    }

    /// How the run has ended, if that was loaded just now.
    pub(crate) fn end_status(&self) -> Option<Arc<Value>> {
        self.lock().end_status()
    }

    /// Returns whether the caller should load the end status.
    pub(crate) fn begin_end_status(&self) -> bool {
        self.lock().begin_end_status()
    }

    /// Ends a load of the end status; None if it was cancelled.
    pub(crate) fn set_end_status(&self, status: Option<Value>) {
        self.lock().set_end_status(status);
        self.notify();
    }
}

/// The tail's own loop.
impl RunTail {
    /// Follows the run until it has had no viewer for [`LINGER`].
    pub(crate) async fn follow(&self, reader: &Reader) {
        let mut cursor = self.find_end(reader).await;
        let mut backoff = Backoff::for_connections();
        let mut unwatched_since = None;
        let mut vain_reads = 0;
        loop {
            let is_prompted = self.lock().take_prompt();
            // Read on until the ring has everything.
            let wait = match read_frames(reader, self.run, cursor, ReadLimit::FULL_PAGE).await {
                Ok(batch) => {
                    backoff.reset();
                    let has_more = !batch.status.caught_up;
                    let is_degraded = batch.status.without_redis.is_some();
                    let max_bytes = self.memory.bytes_per_run();
                    let appended = self.lock().append_batch(self.run, batch, max_bytes);
                    if appended.changed {
                        self.notify();
                        vain_reads = 0;
                    } else if is_prompted && !is_degraded {
                        vain_reads += 1;
                        self.false_wakeups.inc();
                        sleep(vain_pause(vain_reads)).await;
                    }
                    cursor = appended.end;
                    match (has_more, is_degraded) {
                        (true, _) => continue,
                        (false, true) => POLL_INTERVAL_DEGRADED,
                        (false, false) => POLL_INTERVAL.mul_f64(rand::rng().random_range(0.8..1.2)),
                    }
                }
                Err(error) => {
                    self.read_failed(&error);
                    backoff.next_wait()
                }
            };
            // Without viewers the tail lingers, then ends.
            let remaining = if self.is_watched() {
                unwatched_since = None;
                wait
            } else {
                let since = *unwatched_since.get_or_insert_with(Instant::now);
                LINGER.saturating_sub(since.elapsed())
            };
            if remaining.is_zero() {
                return;
            }
            // Sleep until a wake-up, a viewer that comes or goes, or the next poll.
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(wait.min(remaining)) => {}
            }
        }
    }

    /// Finds where the run ends now, and begins the ring there.
    async fn find_end(&self, reader: &Reader) -> EventId {
        let mut backoff = Backoff::for_connections();
        loop {
            match reader.end(self.run).await {
                Ok(end) => {
                    self.lock().ring = Some(Ring::new(end));
                    self.notify();
                    return end;
                }
                Err(error) => self.read_failed(&error),
            }
            sleep(backoff.next_wait()).await;
        }
    }

    fn read_failed(&self, error: &ReadError) {
        let is_new = self.lock().set_degraded(Degraded::from(error));
        if is_new {
            warn!(run = %self.run, %error, "cannot read the run; retrying");
            self.notify();
        } else {
            debug!(run = %self.run, %error, "still cannot read the run");
        }
    }
}

/// The pause after so many reads in a row that found nothing of what a wake-up had announced.
fn vain_pause(reads: u32) -> Duration {
    let factor = 2_u32.saturating_pow(reads.saturating_sub(1).min(16));
    MIN_VAIN_PAUSE.saturating_mul(factor).min(MAX_VAIN_PAUSE)
}
