//! The end of a stream that is not released yet, and which parts of it will be masked.
//!
//! Data: the bytes, their position in the stream, and the ranges to mask, ordered and not
//! overlapping. Positions count the bytes of the stream. The owner bounds the size.

use super::encodings::is_terminator;
use super::secret_value::MASK;

/// Text that is not released yet.
pub(super) struct HeldBack {
    bytes: Vec<u8>,
    /// Position of the first byte.
    start: u64,
    /// The two bytes before it, the last one first.
    before: [u8; 2],
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
            before: [b'\n'; 2],
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

    /// Position behind the last byte that is not a line end.
    pub(super) fn end_of_text(&self) -> u64 {
        let last = self.bytes.iter().rposition(|byte| !is_terminator(*byte));
        self.start + last.map_or(0, |last| last as u64 + 1)
    }

    /// Whether there is a line end between two positions.
    pub(super) fn has_line_end(&self, start: u64, end: u64) -> bool {
        let index = |position: u64| usize::try_from(position - self.start).unwrap_or(0);
        let between = &self.bytes[index(start)..index(end)];
        between.iter().any(|byte| is_terminator(*byte))
    }

    /// Whether a letter, a digit, `-` or `_` precedes this position.
    pub(super) fn follows_word(&self, position: u64) -> bool {
        let at = usize::try_from(position - self.start).unwrap_or(0);
        let byte_before = |bytes: usize| match at.checked_sub(bytes) {
            Some(at) => self.bytes[at],
            None => self.before[bytes - at - 1],
        };
        let escaped = byte_before(2) == b'\\' && matches!(byte_before(1), b'n' | b't' | b'r');
        !escaped
            && (byte_before(1).is_ascii_alphanumeric() || matches!(byte_before(1), b'-' | b'_'))
    }

    /// Position where the `length` bytes before the index `end` start. Line ends do not count,
    /// since the search skips them. Not before `start`.
    pub(super) fn start_before(&self, end: usize, length: usize) -> u64 {
        let mut remaining = length;
        let mut at = end;
        while remaining > 0 && at > 0 {
            at -= 1;
            remaining -= usize::from(!is_terminator(self.bytes[at]));
        }
        self.start + at as u64
    }

    /// Masks what lies between two positions, as far as it is not released yet.
    pub(super) fn mask(&mut self, start: u64, end: u64) {
        let mut start = start.max(self.start);
        let mut end = end;
        if start >= end {
            return;
        }
        while let Some((before, until)) = self.masks.pop_if(|(_, until)| *until >= start) {
            start = start.min(before);
            end = end.max(until);
        }
        self.masks.push((start, end));
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
        let length = usize::try_from(until - self.start).unwrap_or(0);
        let mut from = self.start;
        let index = |position: u64| usize::try_from(position - self.start).unwrap_or(0);
        let mut later = Vec::new();
        for (start, end) in std::mem::take(&mut self.masks) {
            if start >= until {
                later.push((start, end));
                continue;
            }
            out.extend_from_slice(&self.bytes[index(from)..index(start)]);
            if self.masked_to != Some(start) {
                out.extend_from_slice(MASK);
            }
            from = end.min(until);
            self.masked_to = Some(from);
            if end > until {
                later.push((until, end));
            }
        }
        self.masks = later;
        out.extend_from_slice(&self.bytes[index(from)..length]);
        for byte in &self.bytes[length.saturating_sub(2)..length] {
            self.before = [*byte, self.before[0]];
        }
        self.bytes.drain(..length);
        self.start = until;
    }
}
