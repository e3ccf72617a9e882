//! Lines of a run: chunks of each stream joined until a newline, in the order in which they began.
//!
//! A line is named by the event that it began with. It is joined over at most [`JOIN_EVENTS`] events of
//! all streams and [`MOST_BYTES`]; a longer one counts as several, and a gap ends all of them. So
//! whoever joins a stretch of a run and wants its lines whole adds so many events on both sides.

use std::collections::{HashMap, VecDeque};

use anstream::adapter::strip_str;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;

use super::chunk::Chunk;
use crate::pages::HistoryItem;

/// Over how many events a line is joined.
pub const JOIN_EVENTS: usize = 256;

/// Longest line that is joined.
const MOST_BYTES: usize = 64 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLine {
    /// The event that it began with.
    pub id: EventId,
    /// The kind of that event.
    pub kind: Kind,
    /// Which attempt wrote it.
    pub variation: u16,
    /// Where to.
    pub stream: String,
    /// Its severity, if it has one.
    pub level: Option<String>,
    /// When it began, by the producer's clock.
    pub time: u64,
    /// Its text without escape sequences, control characters and end; what is no UTF-8 is replaced.
    pub text: String,
    /// It has an end of its own.
    pub is_whole: bool,
}

struct Open {
    line: TextLine,
    bytes: Vec<u8>,
    began: usize,
    is_done: bool,
}

#[derive(Default)]
struct Joiner {
    /// In the order in which they began.
    lines: VecDeque<Open>,
    /// How many were taken off the front.
    taken: usize,
    open: HashMap<(u16, String), usize>,
    events: usize,
    done: Vec<TextLine>,
}

/// The lines of these events.
pub fn join<'a>(items: impl IntoIterator<Item = &'a HistoryItem>) -> Vec<TextLine> {
    let mut joiner = Joiner::default();
    for item in items {
        joiner.push(item);
    }
    joiner.end_all();
    joiner.done
}

impl Joiner {
    fn push(&mut self, item: &HistoryItem) {
        self.events += 1;
        if item.kind == Kind::Gap {
            return self.end_all();
        }
        let Some(chunk) = Chunk::of(item) else {
            return;
        };
        let key = (item.variation, chunk.stream.into_owned());
        for piece in chunk.bytes.split_inclusive(|&byte| byte == b'\n') {
            let at = *self.open.entry(key.clone()).or_insert_with(|| {
                self.lines.push_back(Open {
                    line: TextLine {
                        id: item.event.id,
                        kind: item.kind,
                        variation: item.variation,
                        stream: key.1.clone(),
                        level: chunk.level.as_deref().map(str::to_owned),
                        time: chunk.time,
                        text: String::new(),
                        is_whole: false,
                    },
                    bytes: Vec::new(),
                    began: self.events,
                    is_done: false,
                });
                self.taken + self.lines.len() - 1
            });
            let Some(open) = self.lines.get_mut(at - self.taken) else {
                continue;
            };
            open.bytes.extend_from_slice(piece);
            open.line.is_whole = piece.ends_with(b"\n");
            if open.line.is_whole || open.bytes.len() > MOST_BYTES {
                open.is_done = true;
                self.open.remove(&key);
            }
        }
        self.take_done();
    }

    fn end_all(&mut self) {
        self.open.clear();
        for open in &mut self.lines {
            open.is_done = true;
        }
        self.take_done();
    }

    /// Takes finished lines off the front; one that has been open for too long holds up no other.
    fn take_done(&mut self) {
        while let Some(front) = self.lines.front() {
            if !front.is_done && self.events - front.began < JOIN_EVENTS {
                return;
            }
            let Some(mut open) = self.lines.pop_front() else {
                return;
            };
            if !open.is_done {
                let line = &open.line;
                self.open.remove(&(line.variation, line.stream.clone()));
            }
            self.taken += 1;
            let text = strip_str(&String::from_utf8_lossy(&open.bytes)).to_string();
            text.trim_end_matches(['\n', '\r'])
                .clone_into(&mut open.line.text);
            self.done.push(open.line);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use runcast_common::protocol::entry::Event;
    use runcast_common::protocol::event::{Text, write_line};
    use uuid::Uuid;

    use super::*;

    /// A chunk of output.
    pub(in crate::text) fn item(seq: u64, stream: &str, bytes: &[u8]) -> HistoryItem {
        let mut line = Vec::new();
        let payload = Text::from_chunk(Some(stream), bytes);
        write_line(&mut line, Kind::Output, 0, seq, &payload).expect("a line");
        line.pop();
        HistoryItem {
            kind: Kind::Output,
            variation: 0,
            event: Event {
                id: EventId::new(1, seq),
                producer: Uuid::from_u128(1),
                producer_seq: seq,
                line: line.into(),
            },
        }
    }

    fn shown(items: &[HistoryItem]) -> Vec<(u64, String, bool)> {
        join(items)
            .into_iter()
            .map(|line| (line.id.seq, line.text, line.is_whole))
            .collect()
    }

    #[test]
    fn chunks_are_joined_within_their_stream() {
        let items = [
            item(1, "stdout", b"the \x1b[1man"),
            item(2, "stderr", b"warning\nand"),
            item(3, "stdout", b"swer\x1b[0m\r\n\nis"),
            item(4, "stderr", b" \xff\0more\n"),
        ];
        let expected = [
            (1, "the answer", true),
            (2, "warning", true),
            (2, "and \u{fffd}more", true),
            (3, "", true),
            (3, "is", false),
        ];
        assert_eq!(
            shown(&items),
            expected.map(|(seq, text, whole)| (seq, text.to_owned(), whole))
        );
    }

    #[test]
    fn a_line_without_end_holds_up_nobody() {
        let mut items = vec![item(1, "stdout", b"prompt> ")];
        items.extend((2..=600).map(|seq| item(seq, "stderr", b"line\n")));
        items.push(item(601, "stdout", b"answer\n"));
        let lines = shown(&items);
        assert_eq!(lines[0], (1, "prompt> ".to_owned(), false));
        assert_eq!(lines.last(), Some(&(601, "answer".to_owned(), true)));
        assert!(lines.is_sorted_by_key(|line| line.0));
        assert_eq!(lines.len(), 601);
    }

    #[test]
    fn a_line_is_only_so_long() {
        let items: Vec<HistoryItem> = (1..=100)
            .map(|seq| item(seq, "stdout", &[b'x'; 1_000]))
            .collect();
        let lines = shown(&items);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines.iter().map(|line| line.1.len()).sum::<usize>(),
            100_000
        );
    }
}
