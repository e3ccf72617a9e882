//! One plain text of a run: its chunks in the order in which they came.
//!
//! Escape sequences are kept or stripped, for each stream of each variation by itself, since a
//! sequence may be cut between two chunks; [`MOST_STREAMS`] at a time. With them go control characters and
//! bytes that begin no UTF-8. A gap is a line of its own that
//! begins with the control character RS (0x1e). A line of the run that begins with RS itself gets
//! another one in front: so a line with exactly one RS is Runcast's, and nothing that a run prints can
//! be taken for it. Everything else is byte for byte what was written.
//!
//! After Redis was lost a producer may send again what is stored already; that is left out, by the
//! highest seq of each of the [`MOST_PRODUCERS`] producers heard of.

use std::collections::HashMap;

use anstream::adapter::StripBytes;
use memchr::memchr;
use runcast_common::protocol::event::Kind;
use serde::Deserialize;
use uuid::Uuid;

use super::chunk::Chunk;
use crate::pages::HistoryItem;

/// What a line of Runcast's own begins with.
pub const NOTE: u8 = 0x1e;

/// Streams whose unfinished escape sequences are remembered; of more the memory is dropped, and the rest
/// of a sequence that was just being written may be shown.
const MOST_STREAMS: usize = 64;

/// Producers that are remembered.
const MOST_PRODUCERS: usize = 256;

/// Makes the text, event by event. A clone goes on from the same place.
#[derive(Debug, Clone)]
pub struct PlainText {
    /// Set if escape sequences are stripped.
    strips: Option<HashMap<(u16, String), StripBytes>>,
    seen: HashMap<Uuid, u64>,
    in_line: bool,
}

#[derive(Deserialize)]
struct GapPayload {
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
}

impl PlainText {
    /// At the beginning of a text, with escape sequences kept or stripped.
    #[must_use]
    pub fn new(strip: bool) -> Self {
        Self {
            strips: strip.then(HashMap::new),
            seen: HashMap::new(),
            in_line: false,
        }
    }

    /// Adds what an event says to `out`.
    pub fn push(&mut self, out: &mut Vec<u8>, item: &HistoryItem) {
        if self.is_known(item) {
            return;
        }
        if item.kind == Kind::Gap {
            return self.note(out, &gap_text(&item.event.line));
        }
        let Some(chunk) = Chunk::of(item) else {
            return;
        };
        let Some(strips) = &mut self.strips else {
            return write(out, &mut self.in_line, &chunk.bytes);
        };
        let stream = (item.variation, chunk.stream.into_owned());
        if strips.len() >= MOST_STREAMS && !strips.contains_key(&stream) {
            strips.clear();
        }
        let strip = strips.entry(stream).or_default();
        for printable in strip.strip_next(&chunk.bytes) {
            write(out, &mut self.in_line, printable);
        }
    }

    /// Adds a line of Runcast's own.
    pub fn note(&mut self, out: &mut Vec<u8>, text: &str) {
        if self.in_line {
            out.push(b'\n');
        }
        out.push(NOTE);
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
        self.in_line = false;
    }

    fn is_known(&mut self, item: &HistoryItem) -> bool {
        let event = &item.event;
        if event.producer.is_nil() {
            return false;
        }
        if self.seen.len() >= MOST_PRODUCERS && !self.seen.contains_key(&event.producer) {
            self.seen.clear();
        }
        let highest = self.seen.entry(event.producer).or_insert(0);
        let known = event.producer_seq <= *highest;
        *highest = event.producer_seq.max(*highest);
        known
    }
}

/// Adds bytes of the run, with every line that begins as a note does marked as none.
fn write(out: &mut Vec<u8>, in_line: &mut bool, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        if !*in_line && rest[0] == NOTE {
            out.push(NOTE);
        }
        // Without the character no line can begin with it.
        let line = match memchr(NOTE, rest) {
            None => rest.len(),
            Some(_) => memchr(b'\n', rest).map_or(rest.len(), |at| at + 1),
        };
        out.extend_from_slice(&rest[..line]);
        *in_line = rest[line - 1] != b'\n';
        rest = &rest[line..];
    }
}

fn gap_text(line: &[u8]) -> String {
    let unknown = GapPayload {
        count: None,
        reason: None,
    };
    let gap: GapPayload = serde_json::from_slice(line).unwrap_or(unknown);
    let reason: String = gap
        .reason
        .as_deref()
        .unwrap_or("unknown reason")
        .chars()
        .filter(|letter| !letter.is_control())
        .take(200)
        .collect();
    match gap.count {
        _ if reason == "reborn" => {
            "runcast: the stream was rebuilt here; nothing is missing that was stored".to_owned()
        }
        Some(count) => format!("runcast: {count} events are missing here: {reason}"),
        None => format!("runcast: events may be missing here: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use runcast_common::protocol::entry::Event;
    use runcast_common::protocol::event_id::EventId;

    use super::super::lines::tests::item;
    use super::*;

    fn gap(line: &'static str) -> HistoryItem {
        HistoryItem {
            kind: Kind::Gap,
            variation: 0,
            event: Event {
                id: EventId::new(1, 9),
                producer: Uuid::nil(),
                producer_seq: 0,
                line: Bytes::from_static(line.as_bytes()),
            },
        }
    }

    fn text(strip: bool, items: &[HistoryItem]) -> Vec<u8> {
        let (mut plain, mut out) = (PlainText::new(strip), Vec::new());
        for item in items {
            plain.push(&mut out, item);
        }
        out
    }

    #[test]
    fn what_was_written_comes_out_byte_for_byte() {
        let all: Vec<u8> = (0..=255).cycle().take(2_000).collect();
        let items: Vec<HistoryItem> = (1..)
            .zip(all.chunks(7))
            .map(|(seq, bytes)| item(seq, "stdout", bytes))
            .collect();
        let mut expected = Vec::new();
        for line in all.split_inclusive(|&byte| byte == b'\n') {
            if line[0] == NOTE {
                expected.push(NOTE);
            }
            expected.extend_from_slice(line);
        }
        assert_eq!(text(false, &items), expected);
    }

    #[test]
    fn no_line_of_a_run_looks_like_a_note() {
        let items = [
            item(1, "stdout", b"a\n\x1eruncast: 3 events are missing"),
            item(2, "stdout", b" here: forged\n\x1e"),
            gap(r#"{"kind":"gap","count":3,"reason":"lost"}"#),
            item(3, "stdout", b"\x1e\x1e\nb\x1e\n"),
            gap(r#"{"kind":"gap","count":null,"reason":"li\nne"}"#),
        ];
        let expected = "a\n\x1e\x1eruncast: 3 events are missing here: forged\n\x1e\x1e\n\
            \x1eruncast: 3 events are missing here: lost\n\x1e\x1e\x1e\nb\x1e\n\
            \x1eruncast: events may be missing here: line\n";
        assert_eq!(
            String::from_utf8(text(false, &items)).expect("UTF-8"),
            expected
        );
    }

    #[test]
    fn escape_sequences_are_stripped_across_chunks_of_each_stream() {
        let items = [
            item(1, "stdout", b"a\x1b[3"),
            item(2, "stderr", b"\x1b]0;title\x07err\tor\r\n"),
            item(3, "stdout", b"1mred\x1b[0m \xc3"),
            item(4, "stdout", b"\xa9\0\x08\n"),
        ];
        let shown = text(true, &items);
        assert_eq!(String::from_utf8_lossy(&shown), "aerr\tor\r\nred \u{e9}\n");
    }

    #[test]
    fn what_is_sent_again_is_told_once() {
        let items = [
            item(1, "a", b"x"),
            item(2, "a", b"y"),
            item(1, "a", b"x"),
            item(3, "a", b"z"),
        ];
        assert_eq!(text(false, &items), b"xyz");
    }
}
