//! Decides from the entries of a cycle what to store. Pure decisions, made under the lock of the
//! watermarks:
//! - An event whose producer seq is already stored is dropped: Redis lost it, and the producer
//!   resent it.
//! - A hole between ids, or an entry that cannot be read, becomes one `gap` event in its place.
//!   What cannot be read is kept as a dead letter. The run goes on. The same holds for events that
//!   the stream has lost at its end, and for an entry behind the run's last id.
//! - A final status is compared with the seal of its producer. Seals belong to producers, not to
//!   variations: their seqs are dense, so the checksum is carried on from batch to batch, and two
//!   processes that publish for one variation do not disturb each other.
//! - A lost run comes back by events that were appended after it was marked as lost, not by events
//!   that were only stored later: those prove nothing about an agent that has died since. So the
//!   batch carries the time of each producer's last append.

use std::collections::HashMap;
use std::time::Duration;

use runcast_common::log_limit::LogLimit;
use runcast_common::protocol::entry::{Event, UnreadableEntry};
use runcast_common::protocol::event::{self, Gap, Head, Kind, Status, StatusChange};
use runcast_common::protocol::event_id::EventId;
use tracing::error;
use uuid::Uuid;

use crate::read_run::{self, PendingEntries, ReadEntry};
use runcast_store::copy_rows::EventRow;
use runcast_store::ingest::{DeadLetter, IngestBatch, VariationChange, WatermarkAdvance};
use runcast_store::run_states::{ProducerState, RunState};

/// Each gap would be a line otherwise, and a publisher decides how many there are.
static GAP_LOG: LogLimit = LogLimit::new(Duration::from_secs(10));
static PRODUCER_LOG: LogLimit = LogLimit::new(Duration::from_secs(10));

/// What a cycle stores.
#[derive(Debug, Default)]
pub(crate) struct BuiltBatch {
    pub(crate) batch: IngestBatch,
    /// How far each run is stored once the batch is.
    pub(crate) states: HashMap<Uuid, RunState>,
    /// Events that were already stored and came again.
    pub(crate) replays: u64,
    /// Events that no store holds.
    pub(crate) missing: u64,
}

/// Builds the rows of these entries, given the locked states of their runs. Runs that are not among
/// the states no longer exist and are left out.
pub(crate) fn build_batch(
    pending: &[PendingEntries],
    locked: &HashMap<Uuid, RunState>,
) -> BuiltBatch {
    let mut built = BuiltBatch::default();
    for entries in pending {
        if let Some(state) = locked.get(&entries.run) {
            let run = build_run(entries, state, &mut built.batch);
            built.replays += run.replays;
            built.missing = built.missing.saturating_add(run.missing);
            built.states.insert(entries.run, run.state);
        }
    }
    built
}

/// What a batch does to one run.
struct BuiltRun {
    state: RunState,
    replays: u64,
    missing: u64,
}

/// Adds the rows of one run. If the watermark has moved since the run was read, it adds nothing:
/// the read is stale.
fn build_run(pending: &PendingEntries, state: &RunState, batch: &mut IngestBatch) -> BuiltRun {
    if state.watermark != pending.from {
        return BuiltRun {
            state: state.clone(),
            replays: pending.events(),
            missing: 0,
        };
    }
    let mut builder = RunBuilder {
        run: pending.run,
        reached: state.watermark,
        state: state.clone(),
        producers: Vec::new(),
        events: 0,
        bytes: 0,
        replays: 0,
        missing: 0,
        changes: Vec::new(),
        batch,
    };
    for entry in &pending.entries {
        builder.add_entry(entry);
    }
    if let Some(last) = pending.lost_upto {
        builder.add_lost_end(last);
    }
    if let Some(foreign) = &pending.foreign {
        builder.add_dead_letter(foreign.id, None, &foreign.reason, &foreign.bytes);
    }
    builder.finish();
    BuiltRun {
        state: builder.state,
        replays: builder.replays,
        missing: builder.missing,
    }
}

struct RunBuilder<'a> {
    run: Uuid,
    /// The last id that was processed, also within an entry.
    reached: EventId,
    state: RunState,
    /// Producers with new events, and when the last of these was appended.
    producers: Vec<(Uuid, u64)>,
    events: u64,
    bytes: u64,
    replays: u64,
    missing: u64,
    changes: Vec<VariationChange>,
    batch: &'a mut IngestBatch,
}

impl RunBuilder<'_> {
    fn add_entry(&mut self, entry: &ReadEntry) {
        let last = read_run::id(entry);
        if last <= self.state.watermark {
            return;
        }
        match entry {
            Ok(entry) => {
                self.add_gap_before(entry.first(), entry.appended_ms);
                for event in entry.events() {
                    self.add_event(&event, entry.appended_ms);
                    self.reached = event.id;
                }
                self.state.watermark_event = Some((entry.producer, entry.producer_last()));
            }
            Err(unreadable) => self.add_unreadable(last, unreadable),
        }
        self.state.watermark = last;
        self.reached = last;
    }

    /// Stores a gap for an entry that cannot be read, and the entry as a dead letter.
    fn add_unreadable(&mut self, last: EventId, unreadable: &UnreadableEntry) {
        let missing = if last.epoch == self.state.watermark.epoch {
            last.seq - self.state.watermark.seq
        } else {
            last.seq
        };
        let bytes = unreadable.bytes.len();
        self.add_gap(last, missing, bytes, "unreadable", event::now_ms());
        self.add_dead_letter(last, None, &unreadable.reason, &unreadable.bytes);
        self.state.watermark_event = Some((Uuid::nil(), 0));
    }

    /// Stores a gap for the ids up to `last`, the run's last one, which the stream has lost.
    fn add_lost_end(&mut self, last: EventId) {
        let watermark = self.state.watermark;
        if last <= watermark {
            return;
        }
        let is_same_epoch = last.epoch == watermark.epoch;
        let count = last.seq - if is_same_epoch { watermark.seq } else { 0 };
        self.add_gap(last, count, 0, "lost", event::now_ms());
        self.state.watermark = last;
        self.state.watermark_event = Some((Uuid::nil(), 0));
        self.reached = last;
    }

    /// Stores a gap for the ids before `first` that no entry holds: they were appended and are
    /// lost.
    fn add_gap_before(&mut self, first: EventId, appended_ms: u64) {
        let watermark = self.state.watermark;
        let expected = if first.epoch == watermark.epoch {
            watermark.seq + 1
        } else {
            1
        };
        if first.seq > expected {
            let id = EventId::new(first.epoch, first.seq - 1);
            self.add_gap(id, first.seq - expected, 0, "lost", appended_ms);
            self.reached = id;
        }
    }

    fn add_gap(
        &mut self,
        id: EventId,
        count: u64,
        bytes: usize,
        reason: &'static str,
        time_ms: u64,
    ) {
        self.missing = self.missing.saturating_add(count);
        if let Some(gaps) = GAP_LOG.admit(1) {
            error!(run = %self.run, at = %id, count, reason, gaps,
                "events are missing in the stream");
        }
        let gap = Gap {
            count: Some(count),
            bytes: bytes as u64,
            reason,
            after: Some(self.reached),
            next: Some(EventId::new(id.epoch, id.seq + 1)),
        };
        let mut line = Vec::new();
        if let Err(error) = event::write_line(&mut line, Kind::Gap, 0, time_ms, &gap) {
            // A gap of six short fields always fits; otherwise the log above reports it.
            error!(%error, "cannot write a gap event");
            return;
        }
        line.pop();
        let event = Event {
            id,
            producer: Uuid::nil(),
            producer_seq: 0,
            line: line.into(),
        };
        self.add_row(&event, Kind::Gap, 0, None, time_ms, time_ms);
    }

    fn add_event(&mut self, event: &Event, appended_ms: u64) {
        if event.id <= self.state.watermark {
            return;
        }
        // Drop what is already stored.
        let stored = self.state.producers.entry(event.producer).or_default();
        if event.producer_seq <= stored.seq {
            self.replays += 1;
            return;
        }
        let head = Head::parse(&event.line);
        // A producer that lost events itself publishes a gap in their place.
        let is_gap = matches!(&head, Ok(head) if head.kind == Kind::Gap);
        if event.producer_seq != stored.seq + 1
            && !is_gap
            && let Some(holes) = PRODUCER_LOG.admit(1)
        {
            error!(run = %self.run, producer = %event.producer, id = %event.id, holes,
                missing = event.producer_seq - stored.seq - 1, "events of a producer never came");
        }
        // Move the producer's seq and seal on.
        let before = *stored;
        stored.seq = event.producer_seq;
        stored.seal.add(&event.line);
        let mut producers = self.producers.iter_mut();
        match producers.find(|(producer, _)| *producer == event.producer) {
            Some((_, last_appended_ms)) => *last_appended_ms = appended_ms,
            None => self.producers.push((event.producer, appended_ms)),
        }
        // Store the event, or a gap and a dead letter in its place.
        match head {
            Ok(mut head) => {
                // A producer without a clock, such as a shell script, gets the time of Redis.
                if head.time == 0 {
                    head.time = appended_ms;
                }
                let level = head.level.as_deref();
                let (kind, variation) = (head.kind, head.variation);
                self.add_row(event, kind, variation, level, head.time, appended_ms);
                if head.kind == Kind::Status {
                    self.add_status(event, &head, &before);
                }
            }
            Err(unreadable) => {
                let source = Some((event.producer, event.producer_seq));
                self.add_dead_letter(event.id, source, &unreadable.to_string(), &event.line);
                self.add_gap(event.id, 1, event.line.len(), "unreadable", appended_ms);
            }
        }
    }

    fn add_row(
        &mut self,
        event: &Event,
        kind: Kind,
        variation: u16,
        level: Option<&str>,
        time_ms: u64,
        appended_ms: u64,
    ) {
        self.batch.rows.push(&EventRow {
            run: self.run,
            id: event.id,
            producer: event.producer,
            producer_seq: event.producer_seq,
            kind,
            variation,
            level,
            time_ms,
            appended_ms,
            body: &event.line,
        });
        self.events += 1;
        self.bytes += event.line.len() as u64;
    }

    fn add_dead_letter(
        &mut self,
        id: EventId,
        source: Option<(Uuid, u64)>,
        reason: &str,
        body: &[u8],
    ) {
        self.batch.dead_letters.push(DeadLetter {
            run: self.run,
            id,
            source,
            reason: reason.to_owned(),
            body: body.to_vec(),
        });
    }

    /// Adds the status of a variation; a later one in the batch replaces an earlier one.
    fn add_status(&mut self, event: &Event, head: &Head<'_>, before: &ProducerState) {
        let change: StatusChange = match serde_json::from_slice(&event.line) {
            Ok(change) => change,
            Err(error) => {
                // It stays visible as an event, but changes nothing.
                let source = Some((event.producer, event.producer_seq));
                let reason = format!("status without meaning: {error}");
                return self.add_dead_letter(event.id, source, &reason, &event.line);
            }
        };
        let is_final = change.status.is_final();
        let earlier = self
            .changes
            .iter()
            .position(|change| change.variation == head.variation);
        let started_ms = match earlier {
            Some(index) => self.changes.swap_remove(index).started_ms,
            None => None,
        };
        // The final status itself is not part of its seal.
        let seal = change.seal.filter(|_| is_final);
        self.changes.push(VariationChange {
            run: self.run,
            variation: head.variation,
            status: change.status,
            started_ms: started_ms.or((change.status == Status::Running).then_some(head.time)),
            ended_ms: is_final.then_some(head.time),
            exit_code: change.exit_code,
            signal: change.signal,
            message: change.message,
            missing: seal.map(|seal| seal.events.saturating_sub(before.seal.events)),
            intact: seal.map(|seal| seal == before.seal),
        });
    }

    fn finish(&mut self) {
        let Some(watermark_event) = self.state.watermark_event else {
            return;
        };
        self.batch.progress.push(WatermarkAdvance {
            run: self.run,
            watermark: self.state.watermark,
            watermark_event,
            events: self.events,
            bytes: self.bytes,
        });
        for (producer, last_appended_ms) in self.producers.drain(..) {
            let state = self.state.producers[&producer];
            self.batch.producers.push((self.run, producer, state));
            if self.state.lost {
                let published = (self.run, producer, last_appended_ms);
                self.batch.last_published.push(published);
            }
        }
        self.batch.changes.append(&mut self.changes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use runcast_common::protocol::entry::Entry;
    use runcast_common::protocol::seal::Seal;

    use super::*;

    const PRODUCER: Uuid = Uuid::from_u128(7);

    fn entry(last: EventId, producer_first: u64, lines: &[&str]) -> ReadEntry {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Ok(Entry {
            last,
            producer: PRODUCER,
            producer_first,
            count: lines.len() as u64,
            appended_ms: 1,
            body: Bytes::from(body),
        })
    }

    fn pending(from: EventId, entries: Vec<ReadEntry>) -> PendingEntries {
        PendingEntries {
            run: Uuid::nil(),
            from,
            entries,
            lost_upto: None,
            foreign: None,
        }
    }

    /// Builds one run, and answers its new state beside the batch.
    fn build(from: EventId, entries: Vec<ReadEntry>, state: &RunState) -> (BuiltBatch, RunState) {
        build_pending(pending(from, entries), state)
    }

    fn build_pending(pending: PendingEntries, state: &RunState) -> (BuiltBatch, RunState) {
        let locked = HashMap::from([(Uuid::nil(), state.clone())]);
        let mut built = build_batch(&[pending], &locked);
        let state = built.states.remove(&Uuid::nil()).expect("the run's state");
        (built, state)
    }

    const LINE: &str = r#"{"kind":"output","variation":0,"time":5,"text":"x"}"#;

    #[test]
    fn resent_events_are_stored_once() {
        let mut state = RunState {
            watermark: EventId::new(1, 4),
            ..RunState::default()
        };
        state.producers.insert(
            PRODUCER,
            ProducerState {
                seq: 4,
                seal: Seal::default(),
            },
        );
        let entries = vec![entry(EventId::new(2, 3), 3, &[LINE, LINE, LINE])];
        let (built, after) = build(state.watermark, entries, &state);
        let batch = built.batch;
        assert_eq!(built.replays, 2);
        assert_eq!(batch.rows.rows(), 1);
        assert_eq!(after.watermark, EventId::new(2, 3));
        assert_eq!(after.producers[&PRODUCER].seq, 5);
        assert_eq!(batch.progress[0].events, 1);
        assert!(batch.dead_letters.is_empty());
    }

    #[test]
    fn a_stale_read_stores_nothing() {
        let state = RunState {
            watermark: EventId::new(1, 1),
            ..RunState::default()
        };
        let entries = vec![entry(EventId::new(1, 1), 1, &[LINE])];
        let (built, _) = build(EventId::ZERO, entries, &state);
        let batch = built.batch;
        assert_eq!(built.replays, 1);
        assert_eq!((batch.rows.rows(), batch.progress.len()), (0, 0));
    }

    #[test]
    fn holes_and_unreadable_entries_become_gaps_and_the_run_goes_on() {
        let unreadable = UnreadableEntry {
            id: EventId::new(1, 5),
            reason: "no".into(),
            bytes: Bytes::from("?"),
            is_oversized: false,
        };
        let entries = vec![
            entry(EventId::new(1, 3), 1, &[LINE]),
            Err(unreadable),
            entry(EventId::new(1, 7), 2, &["nonsense", LINE]),
        ];
        let (built, after) = build(EventId::ZERO, entries, &RunState::default());
        let batch = built.batch;
        // Gap at 2, event 3, gap at 5, gap at 6, event 7.
        assert_eq!(batch.rows.rows(), 5);
        assert_eq!(batch.dead_letters.len(), 2);
        assert_eq!(batch.dead_letters[0].body, b"?");
        assert_eq!(batch.dead_letters[1].body, b"nonsense");
        assert_eq!(after.watermark, EventId::new(1, 7));
        assert_eq!(after.producers[&PRODUCER].seq, 3);
    }

    #[test]
    fn a_lost_end_becomes_one_gap_and_a_foreign_entry_a_dead_letter() {
        let mut read = pending(
            EventId::ZERO,
            vec![entry(EventId::new(1, 3), 1, &[LINE; 3])],
        );
        read.lost_upto = Some(EventId::new(1, 9));
        read.foreign = Some(UnreadableEntry {
            id: EventId::new(2, 0),
            reason: "foreign".into(),
            bytes: Bytes::from("a\nb\n"),
            is_oversized: false,
        });
        let (built, after) = build_pending(read, &RunState::default());
        assert_eq!((built.batch.rows.rows(), built.missing), (4, 6));
        assert_eq!(after.watermark, EventId::new(1, 9));
        assert_eq!(after.watermark_event, Some((Uuid::nil(), 0)));
        assert_eq!(built.batch.dead_letters[0].body, b"a\nb\n");
        // Of a later epoch all events are lost, and none of the earlier one.
        let mut read = pending(after.watermark, Vec::new());
        read.lost_upto = Some(EventId::new(5, 2));
        let (built, after) = build_pending(read, &after);
        assert_eq!((built.batch.rows.rows(), built.missing), (1, 2));
        assert_eq!(after.watermark, EventId::new(5, 2));
    }

    #[test]
    fn a_final_status_is_compared_with_the_stored_seal() {
        let mut seal = Seal::default();
        seal.add(LINE.as_bytes());
        for (claimed, intact, missing) in [(seal, true, 0), (Seal { events: 3, ..seal }, false, 2)]
        {
            let change = StatusChange {
                seal: Some(claimed),
                ..StatusChange::to(Status::Succeeded)
            };
            let mut line = Vec::new();
            event::write_line(&mut line, Kind::Status, 1, 9, &change).expect("a line");
            let line = String::from_utf8(line).expect("UTF-8");
            let entries = vec![entry(EventId::new(1, 2), 1, &[LINE, line.trim_end()])];
            let (built, _) = build(EventId::ZERO, entries, &RunState::default());
            let stored = &built.batch.changes[0];
            assert_eq!(
                (stored.intact, stored.missing),
                (Some(intact), Some(missing))
            );
            assert_eq!((stored.variation, stored.ended_ms), (1, Some(9)));
        }
    }
}
