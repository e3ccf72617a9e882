//! Lines of a run: the chunks of each stream joined until a newline, in the order in which lines
//! began.
//!
//! A line is named by the event that it began with. It is joined over at most [`JOIN_EVENTS`]
//! events of all streams and [`MAX_LINE_BYTES`]; a longer line counts as several, and a gap ends
//! all lines. So a caller that joins a part of a run and needs its lines whole adds that many
//! events on both sides.

use std::collections::{HashMap, VecDeque};

use anstream::adapter::strip_str;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;

use super::chunk::Chunk;
use crate::pages::HistoryItem;

/// Events of all streams over which a line is joined.
pub const JOIN_EVENTS: usize = 256;

/// The longest line that is joined.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLine {
    /// The event that it began with.
    pub id: EventId,
    /// The kind of that event.
    pub kind: Kind,
    /// The variation that wrote it.
    pub variation: u16,
    /// The stream that it was written to.
    pub stream: String,
    /// The severity, if it has one.
    pub level: Option<String>,
    /// When it began, by the producer's clock.
    pub time: u64,
    /// Its text without escape sequences, control characters and line end. Invalid UTF-8 is
    /// replaced.
    pub text: String,
    /// It ends with a newline.
    pub is_whole: bool,
}

struct OpenLine {
    line: TextLine,
    bytes: Vec<u8>,
    /// The number of the event with which it began.
    began: usize,
    is_finished: bool,
}

#[derive(Default)]
struct LineJoiner {
    /// In the order in which they began.
    lines: VecDeque<OpenLine>,
    /// How many lines were removed from the front.
    removed: usize,
    open: HashMap<(u16, String), usize>,
    events: usize,
    finished: Vec<TextLine>,
}

/// Joins these events to lines.
pub fn join_lines<'a>(items: impl IntoIterator<Item = &'a HistoryItem>) -> Vec<TextLine> {
    let mut joiner = LineJoiner::default();
    for item in items {
        joiner.push(item);
    }
    joiner.end_all();
    joiner.finished
}

impl LineJoiner {
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
                self.lines.push_back(OpenLine {
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
                    is_finished: false,
                });
                self.removed + self.lines.len() - 1
            });
            let Some(open) = self.lines.get_mut(at - self.removed) else {
                continue;
            };
            open.bytes.extend_from_slice(piece);
            open.line.is_whole = piece.ends_with(b"\n");
            if open.line.is_whole || open.bytes.len() > MAX_LINE_BYTES {
                open.is_finished = true;
                self.open.remove(&key);
            }
        }
        self.take_finished();
    }

    fn end_all(&mut self) {
        self.open.clear();
        for open in &mut self.lines {
            open.is_finished = true;
        }
        self.take_finished();
    }

    /// Removes finished lines from the front. A line that stays unfinished for too long does not
    /// delay the others.
    fn take_finished(&mut self) {
        while let Some(front) = self.lines.front() {
            if !front.is_finished && self.events - front.began < JOIN_EVENTS {
                return;
            }
            let Some(mut open) = self.lines.pop_front() else {
                return;
            };
            if !open.is_finished {
                let line = &open.line;
                self.open.remove(&(line.variation, line.stream.clone()));
            }
            self.removed += 1;
            let text = strip_str(&String::from_utf8_lossy(&open.bytes)).to_string();
            text.trim_end_matches(['\n', '\r'])
                .clone_into(&mut open.line.text);
            self.finished.push(open.line);
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

    fn texts(items: &[HistoryItem]) -> Vec<(u64, String, bool)> {
        join_lines(items)
            .into_iter()
            .map(|line| (line.id.seq, line.text, line.is_whole))
            .collect()
    }

    #[test]
    fn chunks_are_joined_per_stream() {
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
            texts(&items),
            expected.map(|(seq, text, whole)| (seq, text.to_owned(), whole))
        );
    }

    #[test]
    fn an_unfinished_line_does_not_delay_others() {
        let mut items = vec![item(1, "stdout", b"prompt> ")];
        items.extend((2..=600).map(|seq| item(seq, "stderr", b"line\n")));
        items.push(item(601, "stdout", b"answer\n"));
        let lines = texts(&items);
        assert_eq!(lines[0], (1, "prompt> ".to_owned(), false));
        assert_eq!(lines.last(), Some(&(601, "answer".to_owned(), true)));
        assert!(lines.is_sorted_by_key(|line| line.0));
        assert_eq!(lines.len(), 601);
    }

    #[test]
    fn long_lines_are_split() {
        let items: Vec<HistoryItem> = (1..=100)
            .map(|seq| item(seq, "stdout", &[b'x'; 1_000]))
            .collect();
        let lines = texts(&items);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines.iter().map(|line| line.1.len()).sum::<usize>(),
            100_000
        );
    }
}
