//! The end of a stream that is not released yet, which parts of it will be masked, and which a
//! terminal does not show.
//!
//! Data: the bytes, their position in the stream, the ranges to mask and the hidden ranges, both
//! ordered and not overlapping. Positions count the bytes of the stream. The owner bounds the size.

use super::encodings::is_terminator;
use super::secret_value::MASK;
use super::style_sequence::is_style;

/// Bytes before the first one that are stored: more than an escape of a character or a colour in
/// text, such as `\u001b[38;5;123m`.
const BEFORE_BYTES: usize = 24;

/// Which bytes a search sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All of them.
    Raw,
    /// Those that are not hidden.
    Visible,
}

/// A range that a terminal does not show.
#[derive(Debug, Clone, Copy)]
pub(super) struct HiddenRange {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether the text behind it does not continue the word before.
    pub(super) moves: bool,
}

/// Text that is not released yet.
pub(super) struct HeldBack {
    bytes: Vec<u8>,
    /// Position of the first byte.
    start: u64,
    /// The last visible bytes before it.
    before: Vec<u8>,
    hidden: Vec<HiddenRange>,
    /// Ranges to mask; none ends before `start`.
    masks: Vec<(u64, u64)>,
    /// Where the last released mask ended: a range that directly follows needs no other mask.
    masked_to: Option<u64>,
}

impl HeldBack {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            before: Vec::new(),
            hidden: Vec::new(),
            masks: Vec::new(),
            masked_to: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Position of the first byte.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// Position behind the last byte.
    pub(super) const fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The index of a position.
    pub(super) fn index(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.start)).unwrap_or(0)
    }

    /// Hides the bytes between two indexes, as part of the last hidden range if they continue it.
    pub(super) fn hide(&mut self, from: usize, until: usize, moves: bool, continues: bool) {
        let (start, end) = (self.start + from as u64, self.start + until as u64);
        match self.hidden.last_mut() {
            _ if start == end => {}
            Some(last) if continues && last.end == start => {
                last.end = end;
                last.moves |= moves;
            }
            _ => self.hidden.push(HiddenRange { start, end, moves }),
        }
    }

    /// Hides a backspace at this index and the character that it deletes. Returns the index from
    /// which on text is hidden.
    pub(super) fn hide_deleted(&mut self, at: usize) -> usize {
        let mut from = at;
        let mut before = at;
        let mut ranges = self.hidden.len();
        while before > 0 {
            let position = self.start + before as u64;
            if let Some(range) = ranges.checked_sub(1).map(|last| self.hidden[last])
                && range.end == position
            {
                before = self.index(range.start);
                ranges -= 1;
                continue;
            }
            before -= 1;
            let byte = self.bytes[before];
            // A backspace does not leave its line.
            if is_terminator(byte) {
                break;
            }
            from = before;
            // The other bytes of a character continue it.
            if byte & 0xc0 != 0x80 {
                break;
            }
        }
        let start = self.start + from as u64;
        let moves = self
            .hidden
            .iter()
            .any(|range| range.start >= start && range.moves);
        self.hidden.retain(|range| range.start < start);
        let end = self.start + at as u64 + 1;
        self.hidden.push(HiddenRange { start, end, moves });
        from
    }

    /// The first hidden range that ends behind a position.
    pub(super) fn next_hidden(&self, position: u64) -> Option<HiddenRange> {
        let first = self.hidden.partition_point(|range| range.end <= position);
        self.hidden.get(first).copied()
    }

    /// Position behind the last byte that is neither a line end nor unseen.
    pub(super) fn end_of_text(&self, view: View) -> u64 {
        let mut end = self.bytes.len();
        let mut hidden = self.hidden_before(end, view);
        while end > 0 {
            match hidden.split_last() {
                Some((last, rest)) if last.end >= self.start + end as u64 => {
                    end = self.index(last.start);
                    hidden = rest;
                }
                _ if is_terminator(self.bytes[end - 1]) => end -= 1,
                _ => break,
            }
        }
        self.start + end as u64
    }

    /// Whether there is a line end between two positions.
    pub(super) fn has_line_end(&self, start: u64, end: u64) -> bool {
        let between = &self.bytes[self.index(start)..self.index(end)];
        between.iter().any(|byte| is_terminator(*byte))
    }

    /// The visible bytes before a position, at most [`BEFORE_BYTES`]; a line end where the cursor
    /// moved.
    pub(super) fn text_before(&self, position: u64) -> Vec<u8> {
        let mut text = Vec::with_capacity(BEFORE_BYTES);
        let mut at = self.index(position);
        let mut hidden = self.hidden_before(at, View::Visible);
        while at > 0 && text.len() < BEFORE_BYTES {
            match hidden.split_last() {
                Some((last, rest)) if last.end >= self.start + at as u64 => {
                    if last.moves {
                        text.push(b'\n');
                    }
                    at = self.index(last.start);
                    hidden = rest;
                }
                _ => {
                    at -= 1;
                    text.push(self.bytes[at]);
                }
            }
        }
        text.extend(self.before.iter().rev().take(BEFORE_BYTES - text.len()));
        text.reverse();
        text
    }

    /// Position where the `length` bytes before the index `end` start, and whether all of them are
    /// here. Line ends and unseen bytes do not count, since the search skips them.
    pub(super) fn start_before(&self, end: usize, length: usize, view: View) -> (u64, bool) {
        let mut hidden = self.hidden_before(end, view);
        let mut remaining = length;
        let mut at = end;
        let mut start = end;
        while remaining > 0 && at > 0 {
            match hidden.split_last() {
                Some((last, rest)) if last.end >= self.start + at as u64 => {
                    at = self.index(last.start);
                    hidden = rest;
                }
                _ => {
                    at -= 1;
                    if !is_terminator(self.bytes[at]) {
                        remaining -= 1;
                        start = at;
                    }
                }
            }
        }
        let start = if remaining > 0 { 0 } else { start };
        (self.start + start as u64, remaining == 0)
    }

    /// The hidden ranges that start before an index, as far as a view does not see them.
    fn hidden_before(&self, end: usize, view: View) -> &[HiddenRange] {
        let end = self.start + end as u64;
        match view {
            View::Raw => &[],
            View::Visible => {
                let count = self.hidden.partition_point(|range| range.start < end);
                &self.hidden[..count]
            }
        }
    }

    /// Masks what lies between two positions, as far as it is not released yet.
    pub(super) fn mask(&mut self, start: u64, end: u64) {
        let mut start = start.max(self.start);
        let mut end = end;
        if start >= end {
            return;
        }
        let first = self.masks.partition_point(|(_, until)| *until < start);
        let mut last = first;
        while let Some((from, until)) = self.masks.get(last).filter(|(from, _)| *from <= end) {
            start = start.min(*from);
            end = end.max(*until);
            last += 1;
        }
        self.masks.splice(first..last, [(start, end)]);
    }

    /// This position, or the end of the mask around it: masked text need not be held back.
    pub(super) fn skip_mask(&self, position: u64) -> u64 {
        let around = self
            .masks
            .iter()
            .find(|(start, end)| (*start..*end).contains(&position));
        around.map_or(position, |(_, end)| *end)
    }

    /// Appends the text up to a position to `out`, with its masks, and forgets it.
    pub(super) fn release(&mut self, until: u64, out: &mut Vec<u8>) {
        let length = self.index(until);
        if length == 0 {
            return;
        }
        let mut from = self.start;
        let mut later = Vec::new();
        for (start, end) in std::mem::take(&mut self.masks) {
            if start >= until {
                later.push((start, end));
                continue;
            }
            out.extend_from_slice(&self.bytes[self.index(from)..self.index(start)]);
            if !self.continues_mask(start) {
                out.extend_from_slice(MASK);
            }
            from = end.min(until);
            self.keep_styles(start, from, out);
            self.masked_to = Some(from);
            if end > until {
                later.push((until, end));
            }
        }
        self.masks = later;
        out.extend_from_slice(&self.bytes[self.index(from)..length]);
        self.before = self.text_before(until);
        self.masked_to = self.masked_to.map(|at| self.skip_hidden(at, until));
        self.hidden.retain(|range| range.end > until);
        self.bytes.drain(..length);
        self.start = until;
    }

    /// Whether nothing visible lies between the last mask and this position.
    fn continues_mask(&self, position: u64) -> bool {
        let masked_to = self.masked_to.map(|at| self.skip_hidden(at, position));
        masked_to == Some(position)
    }

    /// This position, or the end of the hidden ranges that follow it, but at most `until`.
    fn skip_hidden(&self, position: u64, until: u64) -> u64 {
        let mut at = position;
        while at < until {
            match self.next_hidden(at) {
                Some(range) if range.start <= at => at = range.end.min(until),
                _ => break,
            }
        }
        at
    }

    /// Appends the colours that a mask would take away from the text behind it.
    fn keep_styles(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let first = self.hidden.partition_point(|range| range.start < start);
        for range in self.hidden[first..]
            .iter()
            .take_while(|range| range.end <= end)
        {
            let sequence = &self.bytes[self.index(range.start)..self.index(range.end)];
            if is_style(sequence) {
                out.extend_from_slice(sequence);
            }
        }
    }

    /// The bytes that a terminal shows.
    #[cfg(test)]
    pub(super) fn visible_bytes(&self) -> Vec<u8> {
        let positions = self.start..self.end();
        let shown = positions.zip(&self.bytes).filter(|(position, _)| {
            let range = self.next_hidden(*position);
            range.is_none_or(|range| range.start > *position)
        });
        shown.map(|(_, byte)| *byte).collect()
    }
}
