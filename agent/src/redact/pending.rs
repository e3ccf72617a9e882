//! The end of a stream that is not given out yet, and what of it is to be masked.
//!
//! Data: the bytes, where they stand in the stream, and the places of masks in them, in order and
//! apart from each other. Who uses it bounds it.

use super::MASK;
use super::forms::is_terminator;

/// What is not given out yet.
pub(super) struct Pending {
    bytes: Vec<u8>,
    base: u64,
    /// The two bytes before it, the last one first.
    before: [u8; 2],
    /// None ends before `base`.
    marks: Vec<(u64, u64)>,
    /// Where the last mask that was given out ended: what follows it directly needs no other.
    masked_to: Option<u64>,
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            base: 0,
            before: [b'\n'; 2],
            marks: Vec::new(),
            masked_to: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it begins in the stream.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// Where it ends in the stream.
    pub(super) const fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Where it ends but for line ends.
    pub(super) fn end_of_text(&self) -> u64 {
        let last = self.bytes.iter().rposition(|byte| !is_terminator(*byte));
        self.base + last.map_or(0, |last| last as u64 + 1)
    }

    /// True if there is a line end between two places.
    pub(super) fn has_line_end(&self, start: u64, end: u64) -> bool {
        let index = |place: u64| usize::try_from(place - self.base).unwrap_or(0);
        let between = &self.bytes[index(start)..index(end)];
        between.iter().any(|byte| is_terminator(*byte))
    }

    /// True if a letter, a digit or a joining sign stands before this place.
    pub(super) fn is_word_at(&self, place: u64) -> bool {
        let at = usize::try_from(place - self.base).unwrap_or(0);
        let back = |bytes: usize| match at.checked_sub(bytes) {
            Some(at) => self.bytes[at],
            None => self.before[bytes - at - 1],
        };
        let escaped = back(2) == b'\\' && matches!(back(1), b'n' | b't' | b'r');
        !escaped && (back(1).is_ascii_alphanumeric() || matches!(back(1), b'-' | b'_'))
    }

    /// The place where `length` bytes begin that end at the index `end`, without those that the
    /// search passes over; no further back than what is still here.
    pub(super) fn back(&self, end: usize, length: usize) -> u64 {
        let mut left = length;
        let mut at = end;
        while left > 0 && at > 0 {
            at -= 1;
            left -= usize::from(!is_terminator(self.bytes[at]));
        }
        self.base + at as u64
    }

    /// Masks what stands between two places, as far as it is still here.
    pub(super) fn mark(&mut self, start: u64, end: u64) {
        let mut start = start.max(self.base);
        let mut end = end;
        if start >= end {
            return;
        }
        while let Some((before, until)) = self.marks.pop_if(|(_, until)| *until >= start) {
            start = start.min(before);
            end = end.max(until);
        }
        self.marks.push((start, end));
    }

    /// This place, or the end of the mask that it is in: what is masked need not be held back.
    pub(super) fn outside_marks(&self, place: u64) -> u64 {
        let around = self
            .marks
            .iter()
            .find(|(start, end)| (*start..*end).contains(&place));
        around.map_or(place, |(_, end)| *end)
    }

    /// Appends the text up to a place, with its masks, and forgets it.
    pub(super) fn give(&mut self, until: u64, out: &mut Vec<u8>) {
        let length = usize::try_from(until - self.base).unwrap_or(0);
        let mut from = self.base;
        let index = |place: u64| usize::try_from(place - self.base).unwrap_or(0);
        let mut kept = Vec::new();
        for (start, end) in std::mem::take(&mut self.marks) {
            if start >= until {
                kept.push((start, end));
                continue;
            }
            out.extend_from_slice(&self.bytes[index(from)..index(start)]);
            if self.masked_to != Some(start) {
                out.extend_from_slice(MASK);
            }
            from = end.min(until);
            self.masked_to = Some(from);
            if end > until {
                kept.push((until, end));
            }
        }
        self.marks = kept;
        out.extend_from_slice(&self.bytes[index(from)..length]);
        for byte in &self.bytes[length.saturating_sub(2)..length] {
            self.before = [*byte, self.before[0]];
        }
        self.bytes.drain(..length);
        self.base = until;
    }
}
