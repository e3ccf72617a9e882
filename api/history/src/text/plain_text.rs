//! All text of a run as one plain text: its chunks in the order in which they came.
//!
//! Escape sequences are kept or stripped, together with control characters and bytes that begin no
//! UTF-8. They are stripped for each stream of each variation by itself, since a sequence may be
//! split over two chunks; [`MAX_STREAMS`] streams at a time.
//!
//! A gap is a line of its own that begins with the control character RS (0x1e). A line of the run
//! that begins with RS gets another RS in front. So a line with exactly one RS is Runcast's, and
//! nothing that a run prints can imitate it. Everything else is byte for byte what was written.
//!
//! After a loss of Redis a producer may resend what is stored already. That is left out, by the
//! highest seq of each of the last [`MAX_PRODUCERS`] producers.

use std::collections::HashMap;

use anstream::adapter::StripBytes;
use memchr::memchr;
use runcast_common::protocol::event::Kind;
use serde::Deserialize;
use uuid::Uuid;

use super::chunk::Chunk;
use crate::pages::HistoryItem;

/// The first byte of Runcast's own lines.
pub const NOTE_MARK: u8 = 0x1e;

/// Streams whose unfinished escape sequences are remembered. Beyond that all of them are forgotten,
/// and the rest of a sequence that was just being written may appear in the text.
const MAX_STREAMS: usize = 64;

/// Producers whose highest seq is remembered.
const MAX_PRODUCERS: usize = 256;

/// Makes the text, event by event. A clone continues at the same position.
#[derive(Debug, Clone)]
pub struct PlainText {
    /// Strips escape sequences, for each variation and stream; None if they are kept.
    strippers: Option<HashMap<(u16, String), StripBytes>>,
    last_seqs: HashMap<Uuid, u64>,
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
    /// The beginning of a text, with escape sequences kept or stripped.
    pub fn new(strip: bool) -> Self {
        Self {
            strippers: strip.then(HashMap::new),
            last_seqs: HashMap::new(),
            in_line: false,
        }
    }

    /// Adds the text of an event to `out`.
    pub fn push(&mut self, out: &mut Vec<u8>, item: &HistoryItem) {
        if self.is_resent(item) {
            return;
        }
        if item.kind == Kind::Gap {
            return self.push_note(out, &gap_text(&item.event.line));
        }
        let Some(chunk) = Chunk::of(item) else {
            return;
        };
        let Some(strippers) = &mut self.strippers else {
            return write(out, &mut self.in_line, &chunk.bytes);
        };
        let stream = (item.variation, chunk.stream.into_owned());
        if strippers.len() >= MAX_STREAMS && !strippers.contains_key(&stream) {
            strippers.clear();
        }
        let stripper = strippers.entry(stream).or_default();
        for printable in stripper.strip_next(&chunk.bytes) {
            write(out, &mut self.in_line, printable);
        }
    }

    /// Adds a line of Runcast's own.
    pub fn push_note(&mut self, out: &mut Vec<u8>, text: &str) {
        if self.in_line {
            out.push(b'\n');
        }
        out.push(NOTE_MARK);
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
        self.in_line = false;
    }

    fn is_resent(&mut self, item: &HistoryItem) -> bool {
        let event = &item.event;
        if event.producer.is_nil() {
            return false;
        }
        if self.last_seqs.len() >= MAX_PRODUCERS && !self.last_seqs.contains_key(&event.producer) {
            self.last_seqs.clear();
        }
        let highest = self.last_seqs.entry(event.producer).or_insert(0);
        let known = event.producer_seq <= *highest;
        *highest = event.producer_seq.max(*highest);
        known
    }
}

/// Adds bytes of the run. Escapes every line that begins as a note does.
fn write(out: &mut Vec<u8>, in_line: &mut bool, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        if !*in_line && rest[0] == NOTE_MARK {
            out.push(NOTE_MARK);
        }
        // A line that lacks the character cannot begin with it.
        let line = match memchr(NOTE_MARK, rest) {
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

    use super::super::lines_tests::item;
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
    fn text_is_reproduced_byte_for_byte() {
        let all: Vec<u8> = (0..=255).cycle().take(2_000).collect();
        let items: Vec<HistoryItem> = (1..)
            .zip(all.chunks(7))
            .map(|(seq, bytes)| item(seq, "stdout", bytes))
            .collect();
        let mut expected = Vec::new();
        for line in all.split_inclusive(|&byte| byte == b'\n') {
            if line[0] == NOTE_MARK {
                expected.push(NOTE_MARK);
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
        let stripped = text(true, &items);
        assert_eq!(
            String::from_utf8_lossy(&stripped),
            "aerr\tor\r\nred \u{e9}\n"
        );
    }

    #[test]
    fn resent_events_appear_once() {
        let items = [
            item(1, "a", b"x"),
            item(2, "a", b"y"),
            item(1, "a", b"x"),
            item(3, "a", b"z"),
        ];
        assert_eq!(text(false, &items), b"xyz");
    }
}
