//! SSE frames: each event is encoded once, however many viewers it has.
//!
//! A frame is `event:`, `data:`, `id:` in that order, then an empty line. `data` comes before `id`,
//! so a frame that is cut off never advances a client's cursor. `data` is the event line in its
//! [`envelope`](runcast_history::envelope). A line holds no raw newline or carriage return
//! (`Head::parse` refuses them), so one `data:` line is always enough; other characters that some
//! clients take for the end of a line are escaped.
//!
//! Data: the frames of consecutive events in one piece of shared memory, and a [`Mark`] for each,
//! by which a filter selects without a look at the bytes.

use std::fmt;

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::line_separators::push_escaped;
use runcast_common::protocol::event::{Head, Kind};
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;

use runcast_history::envelope::for_readers;
use runcast_history::filter::{Filter, Levels};
use runcast_history::gap_notice::GapNotice;

/// Where one frame of a batch ends, and what a filter has to know of it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    id: EventId,
    kind: Kind,
    variation: u16,
    level: Levels,
    end: usize,
}

/// Frames of consecutive events in one piece of shared memory.
#[derive(Debug, Clone)]
pub struct Frames {
    /// The batch covers the ids after this one ...
    pub after: EventId,
    /// ... up to and including this one. Not each of them need have a frame.
    pub upto: EventId,
    bytes: Bytes,
    marks: Vec<Mark>,
}

impl Frames {
    /// Bytes that it occupies in memory.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<Mark>()
    }

    /// The frames after `cursor` that `filter` accepts, in as few shared pieces as possible.
    pub fn select(&self, cursor: EventId, filter: &Filter) -> Vec<Bytes> {
        let first = self.marks.partition_point(|mark| mark.id <= cursor);
        let mut start = match first {
            0 => 0,
            _ => self.marks[first - 1].end,
        };
        if filter.accepts_all() {
            return match self.bytes.slice(start..) {
                bytes if bytes.is_empty() => Vec::new(),
                bytes => vec![bytes],
            };
        }
        let mut pieces = Vec::new();
        let mut end = start;
        for mark in &self.marks[first..] {
            if filter.accepts(mark.kind, mark.variation, mark.level) {
                end = mark.end;
            } else {
                if end > start {
                    pieces.push(self.bytes.slice(start..end));
                }
                start = mark.end;
                end = start;
            }
        }
        if end > start {
            pieces.push(self.bytes.slice(start..end));
        }
        pieces
    }
}

/// Builds [`Frames`].
#[derive(Debug)]
pub struct Encoder {
    after: EventId,
    upto: EventId,
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl Encoder {
    /// An empty batch after this id.
    pub const fn new(after: EventId) -> Self {
        Self {
            after,
            upto: after,
            bytes: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// The id that the batch reaches so far.
    pub const fn upto(&self) -> EventId {
        self.upto
    }

    /// Adds an event. An unreadable one becomes a gap.
    pub fn event(&mut self, event: &Event) {
        let Ok(head) = Head::parse(&event.line) else {
            let next = EventId::new(event.id.epoch, event.id.seq + 1);
            return self.gap(event.id, next, Some(1), "unreadable");
        };
        let (kind, variation) = (head.kind, head.variation);
        let level = head.level.as_deref().map(Levels::named).unwrap_or_default();
        self.bytes.extend_from_slice(b"event: ");
        self.bytes.extend_from_slice(kind.name().as_bytes());
        self.bytes.extend_from_slice(b"\ndata: ");
        for_readers(&mut self.bytes, event);
        self.end(event.id, kind, variation, level);
    }

    /// Adds a gap that ends at `at`.
    pub fn gap(&mut self, at: EventId, next: EventId, count: Option<u64>, reason: &'static str) {
        let notice = GapNotice {
            kind: Kind::Gap,
            after: self.upto,
            next,
            count,
            reason,
        };
        self.bytes.extend_from_slice(b"event: gap\ndata: ");
        self.bytes.extend_from_slice(&notice.line());
        self.end(at, Kind::Gap, 0, Levels::default());
    }

    /// Extends the batch to this id without a frame: no store has an event up to there.
    pub fn skip_to(&mut self, id: EventId) {
        self.upto = self.upto.max(id);
    }

    /// The batch.
    pub fn finish(self) -> Frames {
        Frames {
            after: self.after,
            upto: self.upto,
            bytes: self.bytes.into(),
            marks: self.marks,
        }
    }

    fn end(&mut self, id: EventId, kind: Kind, variation: u16, level: Levels) {
        self.bytes
            .extend_from_slice(format!("\nid: {id}\n\n").as_bytes());
        self.marks.push(Mark {
            id,
            kind,
            variation,
            level,
            end: self.bytes.len(),
        });
        self.upto = id;
    }
}

/// A frame that is no event of the run: `ready`, `degraded`, `closing`, `end`, `state` or a
/// heartbeat. Like every frame it has an id: that of the cursor, which stays unchanged.
pub fn notice(name: &str, data: &impl Serialize, cursor: EventId) -> Bytes {
    frame(name, data, cursor)
}

/// A frame of data that is no event line.
pub(crate) fn frame(name: &str, data: &impl Serialize, id: impl fmt::Display) -> Bytes {
    let mut out = format!("event: {name}\ndata: ").into_bytes();
    // Such data are flat structures of strings and numbers: serializing them cannot fail.
    let data = serde_json::to_vec(data).unwrap_or_else(|_impossible| b"{}".to_vec());
    push_escaped(&mut out, &data);
    out.extend_from_slice(format!("\nid: {id}\n\n").as_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(seq: u64, line: &'static str) -> Event {
        Event {
            id: EventId::new(9, seq),
            producer: Uuid::from_u128(1),
            producer_seq: seq + 100,
            line: Bytes::from_static(line.as_bytes()),
        }
    }

    fn frames() -> Frames {
        let mut encoder = Encoder::new(EventId::new(9, 0));
        encoder.event(&event(1, r#"{"kind":"output","variation":0,"text":"a"}"#));
        encoder.event(&event(
            2,
            r#"{"kind":"log","variation":1,"text":"b","id":"forged"}"#,
        ));
        encoder.event(&event(3, r#"{"kind":"output","variation":1,"text":"c"}"#));
        encoder.event(&event(4, "nonsense"));
        encoder.finish()
    }

    fn text(frames: &Frames, cursor: u64, channels: &[&str]) -> String {
        let channels = channels
            .iter()
            .map(|name| name.parse().expect("a channel"))
            .collect();
        let pieces = frames.select(EventId::new(9, cursor), &Filter::new(channels));
        pieces
            .iter()
            .map(|piece| std::str::from_utf8(piece).expect("UTF-8"))
            .collect()
    }

    #[test]
    fn a_frame_is_event_then_data_then_id() {
        assert!(text(&frames(), 0, &[]).starts_with(concat!(
            "event: output\n",
            "data: {\"kind\":\"output\",\"variation\":0,\"text\":\"a\",\"id\":\"9-1\",",
            "\"producer\":\"00000000-0000-0000-0000-000000000001\",\"seq\":101}\n",
            "id: 9-1\n\n",
        )));
    }

    #[test]
    fn no_frame_has_a_line_end_that_only_some_clients_see() {
        let separators = "a\u{2028}b\u{2029}c\u{85}";
        let line = format!(r#"{{"kind":"output","text":"{separators}"}}"#);
        let mut encoder = Encoder::new(EventId::ZERO);
        encoder.event(&Event {
            line: line.into(),
            ..event(1, "")
        });
        let data = serde_json::json!({"name": separators});
        let frames = [
            encoder.finish().bytes,
            notice("state", &data, EventId::ZERO),
        ];
        for frame in frames {
            let text = String::from_utf8(frame.into()).expect("text");
            assert!(text.contains(r"a\u2028b\u2029c\u0085"), "{text}");
            assert!(text.is_ascii(), "{text}");
        }
    }

    #[test]
    fn levels_filter_logs_and_no_other_kinds() {
        let mut encoder = Encoder::new(EventId::new(9, 0));
        encoder.event(&event(1, r#"{"kind":"log","level":"error","text":"a"}"#));
        encoder.event(&event(2, r#"{"kind":"log","level":"info","text":"b"}"#));
        encoder.event(&event(3, r#"{"kind":"log","text":"c"}"#));
        encoder.event(&event(4, r#"{"kind":"output","text":"d"}"#));
        let frames = encoder.finish();
        let levels = Levels::named("error").and(Levels::named("warn"));
        let filter = Filter::default().with_levels(levels);
        let selected = frames.select(EventId::ZERO, &filter).concat();
        let selected = String::from_utf8(selected).expect("text");
        let is_selected = |text: &str| selected.contains(&format!(r#""text":"{text}""#));
        assert_eq!(
            ["a", "b", "c", "d"].map(is_selected),
            [true, false, false, true]
        );
    }

    #[test]
    fn a_producer_cannot_forge_the_envelope() {
        let all = text(&frames(), 1, &["log"]);
        let data = all
            .lines()
            .nth(1)
            .and_then(|line| line.strip_prefix("data: "))
            .expect("data");
        let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(value["id"], "9-2");
        assert!(!data.contains("forged"), "{data}");
    }

    #[test]
    fn filters_and_cursors_select_whole_frames() {
        let frames = frames();
        let count = |text: String| text.matches("\n\n").count();
        assert_eq!(count(text(&frames, 0, &[])), 4);
        assert_eq!(count(text(&frames, 2, &[])), 2);
        assert_eq!(count(text(&frames, 4, &[])), 0);
        assert!(
            text(&frames, 0, &["output:1"])
                .starts_with("event: output\ndata: {\"kind\":\"output\",\"variation\":1")
        );
        // The gap in place of the unreadable line passes every filter.
        assert_eq!(count(text(&frames, 0, &["output:1"])), 2);
        assert_eq!(count(text(&frames, 0, &["status"])), 1);
        assert!(text(&frames, 3, &["status"]).contains("\"reason\":\"unreadable\""));
    }
}
