//! Lines of a run as a reader sees them: the chunks of each stream joined until a newline, in the
//! order in which lines began.
//!
//! A line is named by the event that it began with, which is the event of its row on the page. A
//! chunk with a message or a group is a line by itself, and ends the one before it. A gap ends all
//! lines, and [`MAX_LINE_BYTES`] end one: the rest is another line.
//!
//! Events may begin or end in the middle of a line. [`TextLine::may_continue`] and
//! [`TextLine::is_open`] then say so, and [`extend_lines`] adds the rest once it is read.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use anstream::adapter::strip_str;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

use super::chunk::{Chunk, ShownRow};
use super::record_row::{push_decoded, record_row};
use super::terminal_row::shown_rows;
use crate::pages::HistoryItem;

/// The longest line that is joined.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// A byte order mark, which a row does not show.
const BOM: char = '\u{feff}';

/// Variation and stream: the chunks that form lines with each other.
type StreamKey = (u16, String);

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
    /// It may go on in the next events of its stream.
    pub is_open: bool,
    /// It may have begun before the joined events, which hold none of its stream before it.
    pub may_continue: bool,
    /// What was written, with the newline.
    bytes: Vec<u8>,
    shown: Option<ShownRow<'static>>,
}

impl TextLine {
    /// The line as a reader sees it: the row that a terminal or the page shows.
    pub fn text(&self) -> String {
        let first = self.rows().into_iter().next();
        first.map_or_else(String::new, Cow::into_owned)
    }

    /// What a search looks at, the shown row first: every row that the line shows, the text as it
    /// was written without escape sequences, and JSON with its escapes decoded. In composed form
    /// (NFC).
    pub fn versions(&self) -> Vec<Cow<'_, str>> {
        let mut versions = self.rows();
        let written = self.written();
        let decoded = match written.starts_with('{') && written.contains("\\u") {
            true => {
                let mut decoded = String::with_capacity(written.len());
                push_decoded(&mut decoded, &written);
                Some(Cow::Owned(decoded))
            }
            false => None,
        };
        for version in [Some(written), decoded].into_iter().flatten() {
            let version = composed(version);
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }

    fn rows(&self) -> Vec<Cow<'_, str>> {
        let rows = match &self.shown {
            Some(ShownRow::Record { message, is_json }) => {
                let json = is_json.then(|| String::from_utf8_lossy(&self.bytes));
                let json = json.as_deref().map(|json| json.trim_start_matches(BOM));
                vec![Cow::Owned(record_row(message, json))]
            }
            Some(ShownRow::Group(Some(title))) => vec![Cow::Borrowed(title.as_ref())],
            // The end of a group is not shown.
            Some(ShownRow::Group(None)) => Vec::new(),
            None => {
                let bytes = trim_line_end(&self.bytes);
                match String::from_utf8_lossy(bytes) {
                    text if !has_controls(bytes) => vec![text],
                    text => shown_rows(&text).into_iter().map(Cow::Owned).collect(),
                }
            }
        };
        rows.into_iter()
            .map(|row| composed(without_bom(row)))
            .collect()
    }

    /// The text without escape sequences, control characters and line end. Invalid UTF-8 is
    /// replaced.
    fn written(&self) -> Cow<'_, str> {
        let bytes = trim_line_end(&self.bytes);
        match String::from_utf8_lossy(bytes) {
            text if !has_controls(bytes) => text,
            text => Cow::Owned(strip_str(&text).to_string()),
        }
    }

    fn key(&self) -> StreamKey {
        (self.variation, self.stream.clone())
    }

    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.is_open = !piece.ends_with(b"\n") && self.bytes.len() <= MAX_LINE_BYTES;
    }
}

fn trim_line_end(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    &bytes[..end.map_or(0, |at| at + 1)]
}

/// Whether the shown text may differ from the written one: control characters other than tabs, or
/// bytes with which one may begin.
fn has_controls(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || matches!(byte, 0x7f | 0xc2))
}

fn without_bom(row: Cow<'_, str>) -> Cow<'_, str> {
    match row {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_start_matches(BOM)),
        Cow::Owned(text) if text.starts_with(BOM) => {
            Cow::Owned(text.trim_start_matches(BOM).to_owned())
        }
        owned => owned,
    }
}

/// A text in composed form, in which a letter with an accent is one character.
pub(super) fn composed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        true => text,
        false => Cow::Owned(text.nfc().collect()),
    }
}

#[derive(Default)]
struct LineJoiner {
    /// In the order in which they began.
    lines: Vec<TextLine>,
    open: HashMap<StreamKey, usize>,
    /// Streams of which an event was joined.
    known: HashSet<StreamKey>,
    /// Streams whose last chunk was a marker without its newline, which is no line by itself.
    after_marker: HashSet<StreamKey>,
    /// No line can have begun before the joined events.
    has_beginning: bool,
}

/// Joins these events to lines. `has_beginning`: they begin with the run.
pub fn join_lines<'a>(
    items: impl IntoIterator<Item = &'a HistoryItem>,
    has_beginning: bool,
) -> Vec<TextLine> {
    let mut joiner = LineJoiner {
        has_beginning,
        ..LineJoiner::default()
    };
    for item in items {
        joiner.push(item);
    }
    joiner.lines
}

/// Adds events that follow to the lines that are still open. Returns whether some still are.
pub fn extend_lines(lines: &mut [TextLine], items: &[HistoryItem]) -> bool {
    let open = lines.iter_mut().filter(|line| line.is_open);
    let mut open: HashMap<StreamKey, &mut TextLine> = open.map(|line| (line.key(), line)).collect();
    for item in items {
        if item.kind == Kind::Gap {
            for (_, line) in open.drain() {
                line.is_open = false;
            }
        }
        let Some(chunk) = Chunk::of(item) else {
            continue;
        };
        let key = (item.variation, chunk.stream.into_owned());
        let Some(line) = open.get_mut(&key) else {
            continue;
        };
        match chunk.shown {
            Some(_) => line.is_open = false,
            None => {
                if let Some(piece) = chunk.bytes.split_inclusive(|&byte| byte == b'\n').next() {
                    line.add(piece);
                }
            }
        }
        if !line.is_open {
            open.remove(&key);
        }
    }
    !open.is_empty()
}

/// Whether an event leaves the line of a stream open, so that the next chunk continues it; None if
/// it says nothing about that stream.
pub fn leaves_line_open(item: &HistoryItem, variation: u16, stream: &str) -> Option<bool> {
    if item.kind == Kind::Gap {
        return Some(false);
    }
    let chunk = Chunk::of(item)?;
    if item.variation != variation || chunk.stream != stream {
        return None;
    }
    match (chunk.shown, chunk.bytes.last()) {
        (Some(_), _) => Some(false),
        (None, last) => last.map(|last| *last != b'\n'),
    }
}

impl LineJoiner {
    fn push(&mut self, item: &HistoryItem) {
        if item.kind == Kind::Gap {
            for (_, at) in self.open.drain() {
                self.lines[at].is_open = false;
            }
            self.has_beginning = true;
            return;
        }
        let Some(mut chunk) = Chunk::of(item) else {
            return;
        };
        let key = (item.variation, chunk.stream.to_string());
        let may_continue = self.known.insert(key.clone()) && !self.has_beginning;
        let mut bytes: &[u8] = &chunk.bytes;
        if let Some(shown) = chunk.shown.take() {
            if let Some(at) = self.open.remove(&key) {
                self.lines[at].is_open = false;
            }
            let is_marker = matches!(shown, ShownRow::Group(_));
            let line = TextLine {
                bytes: bytes.to_vec(),
                shown: Some(shown.into_owned()),
                ..new_line(item, &key, &chunk)
            };
            self.lines.push(line);
            if is_marker && !bytes.ends_with(b"\n") {
                self.after_marker.insert(key);
            }
            return;
        }
        if !self.after_marker.is_empty() && !bytes.is_empty() && self.after_marker.remove(&key) {
            let rest = bytes.strip_prefix(b"\r").unwrap_or(bytes);
            bytes = rest.strip_prefix(b"\n").unwrap_or(bytes);
        }
        for (index, piece) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let at = *self.open.entry(key.clone()).or_insert_with(|| {
                self.lines.push(TextLine {
                    may_continue: may_continue && index == 0,
                    ..new_line(item, &key, &chunk)
                });
                self.lines.len() - 1
            });
            let line = &mut self.lines[at];
            line.add(piece);
            if !line.is_open {
                self.open.remove(&key);
            }
        }
    }
}

fn new_line(item: &HistoryItem, key: &StreamKey, chunk: &Chunk<'_>) -> TextLine {
    TextLine {
        id: item.event.id,
        kind: item.kind,
        variation: item.variation,
        stream: key.1.clone(),
        level: chunk.level.as_deref().map(str::to_owned),
        time: chunk.time,
        is_open: false,
        may_continue: false,
        bytes: Vec::new(),
        shown: None,
    }
}
