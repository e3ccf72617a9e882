//! From entries to rows: what is new, what is known, what is missing, what is no event.
//!
//! Pure decisions, made under the lock of the run's watermark:
//! - An event whose producer seq is stored already is dropped: Redis lost its memory and the producer
//!   sent it again.
//! - A hole between ids, or an entry that cannot be read, becomes one `gap` event in its place; what
//!   came instead is kept as a dead letter. The run goes on.
//! - A final status is compared with what is stored of its producer: that is the seal.

use runcast_common::protocol::entry::{Entry, Event, Unreadable};
use runcast_common::protocol::event::{self, Gap, Head, Kind, Status, StatusChange};
use runcast_common::protocol::event_id::EventId;
use tracing::error;
use uuid::Uuid;

use super::read_run::{self, PendingEntries};
use runcast_store::copy_rows::EventRow;
use runcast_store::ingest::{
    DeadLetter, IngestBatch, ProducerState, RunState, VariationChange, WatermarkAdvance,
};

/// What building came to.
#[derive(Debug)]
pub struct BuiltRun {
    /// What is stored of the run once the batch is.
    pub state: RunState,
    /// Events that were stored already and came again.
    pub replays: u64,
}

/// Adds to `batch` what a turn stores, given what is stored already.
/// If the watermark has moved since the turn was read, it adds nothing: the turn is stale.
pub fn build(turn: &PendingEntries, state: &RunState, batch: &mut IngestBatch) -> BuiltRun {
    let mut builder = RunBuilder {
        run: turn.run,
        reached: state.watermark,
        state: state.clone(),
        touched: Vec::new(),
        events: 0,
        bytes: 0,
        replays: 0,
        changes: Vec::new(),
        batch,
    };
    if state.watermark == turn.from {
        for item in &turn.items {
            builder.item(item);
        }
        builder.finish();
    } else {
        builder.replays = turn.events();
    }
    BuiltRun {
        state: builder.state,
        replays: builder.replays,
    }
}

struct RunBuilder<'a> {
    run: Uuid,
    /// The last id that has been dealt with, within an entry too.
    reached: EventId,
    state: RunState,
    /// Producers with new events, and when the last of them was appended.
    touched: Vec<(Uuid, u64)>,
    events: u64,
    bytes: u64,
    replays: u64,
    changes: Vec<VariationChange>,
    batch: &'a mut IngestBatch,
}

impl RunBuilder<'_> {
    fn item(&mut self, item: &Result<Entry, Unreadable>) {
        let last = read_run::id(item);
        if last <= self.state.watermark {
            return;
        }
        match item {
            Ok(entry) => {
                self.hole_before(entry.first(), entry.appended_ms);
                for event in entry.events() {
                    self.event(&event, entry.appended_ms);
                    self.reached = event.id;
                }
                self.state.watermark_event = Some((entry.producer, entry.producer_last()));
            }
            Err(unreadable) => {
                let missing = if last.epoch == self.state.watermark.epoch {
                    last.seq - self.state.watermark.seq
                } else {
                    last.seq
                };
                self.gap(
                    last,
                    missing,
                    unreadable.bytes.len(),
                    "unreadable",
                    event::now_ms(),
                );
                self.dead_letter(last, None, &unreadable.reason, &unreadable.bytes);
                self.state.watermark_event = Some((Uuid::nil(), 0));
            }
        }
        self.state.watermark = last;
        self.reached = last;
    }

    /// Ids that no entry holds: they were appended and are gone.
    fn hole_before(&mut self, first: EventId, appended_ms: u64) {
        let watermark = self.state.watermark;
        let expected = if first.epoch == watermark.epoch {
            watermark.seq + 1
        } else {
            1
        };
        if first.seq > expected {
            let at = EventId::new(first.epoch, first.seq - 1);
            self.gap(at, first.seq - expected, 0, "lost", appended_ms);
            self.reached = at;
        }
    }

    fn gap(&mut self, at: EventId, count: u64, bytes: usize, reason: &'static str, time_ms: u64) {
        error!(run = %self.run, %at, count, reason, "events are missing in the stream");
        let gap = Gap {
            count: Some(count),
            bytes: bytes as u64,
            reason,
            after: Some(self.reached),
            next: Some(EventId::new(at.epoch, at.seq + 1)),
        };
        let mut line = Vec::new();
        if let Err(error) = event::write_line(&mut line, Kind::Gap, 0, time_ms, &gap) {
            // A gap of six short fields always fits; if not, the log above has told of it.
            error!(%error, "a gap could not be written");
            return;
        }
        line.pop();
        self.row(
            &Event {
                id: at,
                producer: Uuid::nil(),
                producer_seq: 0,
                line: line.into(),
            },
            Kind::Gap,
            0,
            None,
            time_ms,
            time_ms,
        );
    }

    fn event(&mut self, event: &Event, appended_ms: u64) {
        if event.id <= self.state.watermark {
            return;
        }
        let known = self.state.producers.entry(event.producer).or_default();
        if event.producer_seq <= known.seq {
            self.replays += 1;
            return;
        }
        let head = Head::parse(&event.line);
        // A producer that lost events itself says so by a gap in their place.
        let told = matches!(&head, Ok(head) if head.kind == Kind::Gap);
        if event.producer_seq != known.seq + 1 && !told {
            error!(run = %self.run, producer = %event.producer, id = %event.id,
                missing = event.producer_seq - known.seq - 1, "events of a producer never came");
        }
        let before = *known;
        known.seq = event.producer_seq;
        known.seal.add(&event.line);
        let mut touched = self.touched.iter_mut();
        match touched.find(|(producer, _)| *producer == event.producer) {
            Some((_, heard_ms)) => *heard_ms = appended_ms,
            None => self.touched.push((event.producer, appended_ms)),
        }
        match head {
            Ok(mut head) => {
                // A producer without a clock, such as a shell script, is taken at Redis' word.
                if head.time == 0 {
                    head.time = appended_ms;
                }
                self.row(
                    event,
                    head.kind,
                    head.variation,
                    head.level.as_deref(),
                    head.time,
                    appended_ms,
                );
                if head.kind == Kind::Status {
                    self.status(event, &head, &before);
                }
            }
            Err(unreadable) => {
                let source = Some((event.producer, event.producer_seq));
                self.dead_letter(event.id, source, &unreadable.to_string(), &event.line);
                self.gap(event.id, 1, event.line.len(), "unreadable", appended_ms);
            }
        }
    }

    fn row(
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

    fn dead_letter(&mut self, id: EventId, source: Option<(Uuid, u64)>, reason: &str, body: &[u8]) {
        self.batch.dead_letters.push(DeadLetter {
            run: self.run,
            id,
            source,
            reason: reason.to_owned(),
            body: body.to_vec(),
        });
    }

    fn status(&mut self, event: &Event, head: &Head<'_>, before: &ProducerState) {
        let change: StatusChange = match serde_json::from_slice(&event.line) {
            Ok(change) => change,
            Err(error) => {
                // It stays visible as an event, but changes nothing.
                return self.dead_letter(
                    event.id,
                    Some((event.producer, event.producer_seq)),
                    &format!("status without meaning: {error}"),
                    &event.line,
                );
            }
        };
        let ends = change.status.is_final();
        let earlier = self
            .changes
            .iter()
            .position(|one| one.variation == head.variation);
        let started_ms = match earlier {
            Some(index) => self.changes.swap_remove(index).started_ms,
            None => None,
        };
        self.changes.push(VariationChange {
            run: self.run,
            variation: head.variation,
            status: change.status,
            started_ms: started_ms.or((change.status == Status::Running).then_some(head.time)),
            ended_ms: ends.then_some(head.time),
            exit_code: change.exit_code,
            signal: change.signal,
            message: change.message,
            missing: change
                .seal
                .filter(|_| ends)
                .map(|seal| seal.events.saturating_sub(before.seal.events)),
            intact: change.seal.filter(|_| ends).map(|seal| seal == before.seal),
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
        for (producer, heard_ms) in self.touched.drain(..) {
            let state = self.state.producers[&producer];
            self.batch.producers.push((self.run, producer, state));
            if self.state.lost {
                self.batch.heard.push((self.run, producer, heard_ms));
            }
        }
        self.batch.changes.append(&mut self.changes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use runcast_common::protocol::seal::Seal;

    use super::*;

    const PRODUCER: Uuid = Uuid::from_u128(7);

    fn entry(last: EventId, producer_first: u64, lines: &[&str]) -> Result<Entry, Unreadable> {
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

    fn turn(from: EventId, items: Vec<Result<Entry, Unreadable>>) -> PendingEntries {
        PendingEntries {
            run: Uuid::nil(),
            from,
            items,
        }
    }

    const LINE: &str = r#"{"kind":"output","variation":0,"time":5,"text":"x"}"#;

    #[test]
    fn what_a_producer_sent_again_is_stored_once() {
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
        let mut batch = IngestBatch::default();
        let items = vec![entry(EventId::new(2, 3), 3, &[LINE, LINE, LINE])];
        let built = build(&turn(state.watermark, items), &state, &mut batch);
        assert_eq!(built.replays, 2);
        let after = built.state;
        assert_eq!(batch.rows.rows(), 1);
        assert_eq!(after.watermark, EventId::new(2, 3));
        assert_eq!(after.producers[&PRODUCER].seq, 5);
        assert_eq!(batch.progress[0].events, 1);
        assert!(batch.dead_letters.is_empty());
    }

    #[test]
    fn a_stale_turn_stores_nothing() {
        let state = RunState {
            watermark: EventId::new(1, 1),
            ..RunState::default()
        };
        let mut batch = IngestBatch::default();
        let items = vec![entry(EventId::new(1, 1), 1, &[LINE])];
        let built = build(&turn(EventId::ZERO, items), &state, &mut batch);
        assert_eq!(built.replays, 1);
        assert_eq!((batch.rows.rows(), batch.progress.len()), (0, 0));
    }

    #[test]
    fn holes_and_what_cannot_be_read_become_gaps_and_the_run_goes_on() {
        let unreadable = Unreadable {
            id: EventId::new(1, 5),
            reason: "no".into(),
            bytes: Bytes::from("?"),
        };
        let items = vec![
            entry(EventId::new(1, 3), 1, &[LINE]),
            Err(unreadable),
            entry(EventId::new(1, 7), 2, &["nonsense", LINE]),
        ];
        let mut batch = IngestBatch::default();
        let after = build(
            &turn(EventId::ZERO, items),
            &RunState::default(),
            &mut batch,
        )
        .state;
        // Gap at 2, event 3, gap at 5, gap at 6, event 7.
        assert_eq!(batch.rows.rows(), 5);
        assert_eq!(batch.dead_letters.len(), 2);
        assert_eq!(batch.dead_letters[0].body, b"?");
        assert_eq!(batch.dead_letters[1].body, b"nonsense");
        assert_eq!(after.watermark, EventId::new(1, 7));
        assert_eq!(after.producers[&PRODUCER].seq, 3);
    }

    #[test]
    fn a_final_status_is_compared_with_what_is_stored() {
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
            let items = vec![entry(EventId::new(1, 2), 1, &[LINE, line.trim_end()])];
            let mut batch = IngestBatch::default();
            build(
                &turn(EventId::ZERO, items),
                &RunState::default(),
                &mut batch,
            );
            let stored = &batch.changes[0];
            assert_eq!(
                (stored.intact, stored.missing),
                (Some(intact), Some(missing))
            );
            assert_eq!((stored.variation, stored.ended_ms), (1, Some(9)));
        }
    }
}
