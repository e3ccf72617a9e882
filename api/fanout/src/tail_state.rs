//! What a tail knows of its run, behind the tail's lock: the ring, the pages from before it, and
//! what viewers get beside events.
//!
//! The methods only change this state and say whether viewers would see a difference. The tail
//! notifies its listeners after it has released the lock.
//!
//! Bounds: ring and pages each keep at most the bytes that the caller passes, heartbeats and
//! updates have bounds of their own. Time: the end status of a run is reused for
//! [`END_STATUS_TTL`].

use std::sync::Arc;
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use crate::backfill::Backfill;
use crate::degraded::Degraded;
use crate::frame::Frames;
use crate::heartbeats::LatestHeartbeats;
use crate::read_frames::ReadBatch;
use crate::ring::{Lookup, Ring};
use crate::run_updates::LatestUpdates;

/// How long a loaded end status is given to viewers: those that come together cause one query.
const END_STATUS_TTL: Duration = Duration::from_secs(1);

/// What a tail knows of its run.
#[derive(Debug, Default)]
pub(crate) struct TailState {
    /// None until the tail knows where the run ends.
    pub(crate) ring: Option<Ring>,
    pub(crate) backfill: Backfill,
    ended: bool,
    /// The run was deleted: nothing of it is kept or sent any more.
    deleted: bool,
    /// The run has come further than what any store holds at the moment.
    lacks_end: bool,
    /// What a wake-up has asked the tail to read, since the last read began.
    prompt: Option<Prompt>,
    degraded: Option<Degraded>,
    /// Why events from before the ring cannot be read at the moment.
    backfill_degraded: Option<Degraded>,
    pub(crate) heartbeats: LatestHeartbeats,
    pub(crate) updates: LatestUpdates,
    end_status: EndStatus,
}

/// How the run has ended, as far as it is known.
#[derive(Debug, Default)]
enum EndStatus {
    #[default]
    Unknown,
    Loading,
    Loaded(Instant, Arc<Value>),
}

/// What a viewer at one cursor sees of the tail.
#[derive(Debug)]
pub(crate) struct TailView {
    /// What follows the cursor.
    pub(crate) lookup: Lookup,
    /// The last id of the run, if it has ended.
    pub(crate) end: Option<EventId>,
    /// The run was deleted.
    pub(crate) deleted: bool,
    /// The current outage, if any.
    pub(crate) degraded: Option<Degraded>,
    /// The number of the newest heartbeat.
    pub(crate) heartbeat_number: u64,
    /// The number of the newest update.
    pub(crate) update_number: u64,
}

/// What a wake-up says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// The run has events up to this id.
    Upto(EventId),
    /// Postgres has stored more of the run.
    Stored,
    /// Something else, such as that the run is over.
    Other,
}

/// What became of a batch that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchOutcome {
    /// Where the ring ends now.
    pub(crate) end: EventId,
    /// Viewers see a difference.
    pub(crate) changed: bool,
}

impl TailState {
    /// What a viewer at `cursor` sees.
    pub(crate) fn view(&self, cursor: EventId) -> TailView {
        let (lookup, end) = match &self.ring {
            Some(ring) => (ring.lookup(cursor), self.ended.then(|| ring.end())),
            None => (Lookup::Unknown, None),
        };
        let (lookup, degraded) = match lookup {
            Lookup::Behind => match self.backfill.lookup(cursor) {
                Some(page) => (Lookup::Next(vec![page]), self.degraded.clone()),
                None => (Lookup::Behind, self.backfill_degraded.clone()),
            },
            lookup => (lookup, self.degraded.clone()),
        };
        TailView {
            lookup,
            end,
            deleted: self.deleted,
            degraded,
            heartbeat_number: self.heartbeats.newest(),
            update_number: self.updates.newest(),
        }
    }

    /// Notes what a wake-up says. Returns whether the tail should read because of it.
    pub(crate) fn prompt(&mut self, prompt: Prompt) -> bool {
        let is_news = match prompt {
            Prompt::Upto(id) => self.ring.as_ref().is_none_or(|ring| id > ring.end()),
            // That known events are stored changes nothing for viewers.
            Prompt::Stored => self.lacks_end,
            Prompt::Other => true,
        };
        if is_news {
            self.prompt = Some(prompt);
        }
        is_news
    }

    /// Returns whether a wake-up has asked for the read that begins now, and what it announced is
    /// still unknown.
    pub(crate) fn take_prompt(&mut self) -> bool {
        match (self.prompt.take(), &self.ring) {
            (Some(Prompt::Upto(id)), Some(ring)) => id > ring.end(),
            (prompt, _) => prompt.is_some(),
        }
    }

    /// Appends a batch that was read from the end of the ring, and takes over how the read ended.
    pub(crate) fn append_batch(
        &mut self,
        run: Uuid,
        batch: ReadBatch,
        max_bytes: usize,
    ) -> BatchOutcome {
        let (after, upto) = (batch.frames.after, batch.frames.upto);
        if self.deleted || batch.status.deleted {
            let changed = self.set_deleted();
            let end = self.ring.as_ref().map_or(after, Ring::end);
            return BatchOutcome { end, changed };
        }
        let degraded = batch.status.without_redis.map(|reason| {
            if self.degraded.is_none() {
                warn!(%run, reason, "cannot read the run from Redis; following Postgres instead");
            }
            Degraded::REDIS_DOWN
        });
        let has_grown = upto > after;
        let changed = has_grown || self.ended != batch.status.ended || self.degraded != degraded;
        if let (true, Some(ring)) = (has_grown, &mut self.ring) {
            ring.push(batch.frames, max_bytes);
        }
        self.ended = batch.status.ended;
        self.lacks_end = batch.status.lacks_end;
        self.degraded = degraded;
        BatchOutcome { end: upto, changed }
    }

    /// Drops all that is kept of the run, which was deleted. Returns whether that is new.
    pub(crate) fn set_deleted(&mut self) -> bool {
        self.forget_events();
        !std::mem::replace(&mut self.deleted, true)
    }

    /// Drops the events that are kept, since they have changed where they are stored. A viewer that
    /// needs them reads them from there.
    pub(crate) fn forget_events(&mut self) {
        self.backfill.clear();
        if let Some(ring) = &mut self.ring {
            *ring = Ring::new(ring.end());
        }
    }

    /// Notes that the tail cannot read on. Returns whether that is new.
    pub(crate) fn set_degraded(&mut self, degraded: Degraded) -> bool {
        self.degraded.replace(degraded.clone()) != Some(degraded)
    }

    /// Keeps a page that was read from `cursor`, from before the ring.
    pub(crate) fn add_backfill(
        &mut self,
        cursor: EventId,
        page: Frames,
        redis_entries: usize,
        max_bytes: usize,
    ) {
        self.backfill.end_read(cursor);
        if self.deleted {
            return;
        }
        self.backfill.insert(page, redis_entries, max_bytes);
        self.backfill_degraded = None;
    }

    /// Notes that pages from before the ring cannot be read. Returns whether that is new.
    pub(crate) fn set_backfill_degraded(&mut self, degraded: Degraded) -> bool {
        self.backfill_degraded.replace(degraded.clone()) != Some(degraded)
    }

    /// Keeps no page, and no more of the ring than `max_bytes`.
    pub(crate) fn shrink_to(&mut self, max_bytes: usize) {
        self.backfill.clear();
        if let Some(ring) = &mut self.ring {
            ring.shrink_to(max_bytes);
        }
    }

    /// How the run has ended, if that was loaded within [`END_STATUS_TTL`].
    pub(crate) fn end_status(&self) -> Option<Arc<Value>> {
        match &self.end_status {
            EndStatus::Loaded(at, status) if at.elapsed() < END_STATUS_TTL => {
                Some(Arc::clone(status))
            }
            _ => None,
        }
    }

    /// Returns whether the caller should load the end status: true unless a load is under way.
    pub(crate) fn begin_end_status(&mut self) -> bool {
        let is_loading = matches!(self.end_status, EndStatus::Loading);
        if !is_loading {
            self.end_status = EndStatus::Loading;
        }
        !is_loading
    }

    /// Ends a load of the end status; None if it was cancelled.
    pub(crate) fn set_end_status(&mut self, status: Option<Value>) {
        self.end_status = match status {
            Some(status) => EndStatus::Loaded(Instant::now(), Arc::new(status)),
            None => EndStatus::Unknown,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> EventId {
        EventId::new(1, seq)
    }

    #[test]
    fn a_wake_up_causes_a_read_only_if_it_may_be_news() {
        let mut state = TailState::default();
        assert!(
            state.prompt(Prompt::Upto(id(1))),
            "the end is not known yet"
        );
        assert!(state.take_prompt());
        assert!(!state.take_prompt());
        state.ring = Some(Ring::new(id(10)));
        assert!(!state.prompt(Prompt::Upto(id(10))));
        assert!(!state.prompt(Prompt::Stored));
        assert!(!state.take_prompt());
        assert!(state.prompt(Prompt::Upto(id(11))));
        // A read that was under way has brought it.
        state.ring = Some(Ring::new(id(11)));
        assert!(!state.take_prompt());
        assert!(state.prompt(Prompt::Other) && state.take_prompt());
        state.lacks_end = true;
        assert!(state.prompt(Prompt::Stored) && state.take_prompt());
    }

    #[test]
    fn nothing_is_kept_of_a_deleted_run() {
        let mut state = TailState {
            ring: Some(Ring::new(id(10))),
            ..TailState::default()
        };
        let frames = |after, upto| {
            let mut encoder = crate::frame::Encoder::new(id(after));
            encoder.gap(id(upto), id(upto + 1), None, "test");
            encoder.finish()
        };
        state.add_backfill(id(1), frames(1, 5), 1, usize::MAX);
        assert!(state.set_deleted());
        assert!(!state.set_deleted());
        // What was read before arrives late.
        state.add_backfill(id(1), frames(1, 5), 1, usize::MAX);
        for cursor in [1, 10] {
            let view = state.view(id(cursor));
            assert!(view.deleted);
            assert!(!matches!(view.lookup, Lookup::Next(_)), "{cursor}");
        }
    }

    #[test]
    fn one_caller_at_a_time_loads_the_end_status() {
        let mut state = TailState::default();
        assert!(state.begin_end_status());
        assert!(!state.begin_end_status());
        state.set_end_status(None);
        assert!(state.end_status().is_none());
        assert!(state.begin_end_status());
        state.set_end_status(Some(Value::Null));
        assert!(state.end_status().is_some());
    }
}
