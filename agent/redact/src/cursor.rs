//! [`Cursor`]: how far a stream is searched, and what is open there.
//!
//! A stream has up to two cursors. The first sees all bytes ([`View::Raw`]), so a secret is found
//! within an escape sequence too, such as in the address of a link. The second sees what a terminal
//! shows ([`View::Visible`]), so a secret is found that is interrupted by escape sequences. It
//! exists from an escape sequence until it is in the same state as the first, which usually is the
//! case one character later: text without escape sequences is searched once.

use aho_corasick::automaton::StateID;

use super::automaton::{Automaton, PatternKind};
use super::held_back::{HeldBack, View};
use super::token_formats::{ByteStep, OpenKey, OpenToken, is_word_before};

/// Bytes of a token behind its prefix that reveal too much.
const REVEALING_TOKEN_BYTES: u16 = 4;

/// Bytes before a line end that are not held back: fewer than reveal too much of the shortest
/// secret.
const MAX_FREE_BYTES: usize = 2;

/// How far a stream is searched in one view.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cursor {
    state: StateID,
    tokens: Vec<OpenToken>,
    key: Option<OpenKey>,
}

impl Cursor {
    pub(super) const fn new(state: StateID) -> Self {
        Self {
            state,
            tokens: Vec::new(),
            key: None,
        }
    }

    /// Starts again with another automaton: incomplete tokens will be found again in the held text.
    pub(super) fn restart(&mut self, state: StateID) {
        self.state = state;
        self.tokens.retain(|token| token.is_complete);
    }

    /// Searches the bytes between two indexes, all of which it sees.
    pub(super) fn read(
        &mut self,
        automaton: &Automaton,
        held_back: &mut HeldBack,
        (from, end): (usize, usize),
        view: View,
    ) {
        let mut at = from;
        while at < end {
            let until = match self.tokens.is_empty() && self.key.is_none() {
                true => end,
                // Open tokens and keys see each byte.
                false => {
                    self.feed_open(held_back, at);
                    at + 1
                }
            };
            let (length, state, matched) = automaton.run(self.state, &held_back.bytes()[at..until]);
            at += length;
            self.state = state;
            if matched {
                self.on_match(automaton, held_back, at, view);
            }
        }
    }

    /// Ends open tokens where the cursor of the terminal moves.
    pub(super) fn end_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Handles the patterns that end at the index `end`.
    fn on_match(
        &mut self,
        automaton: &Automaton,
        held_back: &mut HeldBack,
        end: usize,
        view: View,
    ) {
        let until = held_back.start() + end as u64;
        for (kind, length) in automaton.matches(self.state) {
            // If part of a prefix was released, only the rest is here.
            let (start, is_whole) = held_back.start_before(end, length, view);
            match kind {
                PatternKind::Value => held_back.mask(start, until),
                PatternKind::Prefix(format) => {
                    let is_unbroken = !held_back.has_line_end(start, until);
                    let is_in_word = format.is_ambiguous
                        && is_whole
                        && is_word_before(&held_back.text_before(start));
                    // A token of this format that started earlier is complete first.
                    let is_open = self.tokens.iter().any(|token| token.is_of(format));
                    if is_unbroken && !is_in_word && !is_open {
                        self.tokens.push(OpenToken::new(start, format));
                    }
                }
                PatternKind::KeyBegin => self.key = Some(OpenKey::default()),
                PatternKind::KeyEnd => {
                    if let Some(key) = &mut self.key {
                        key.is_ending = true;
                    }
                }
            }
        }
    }

    /// Gives the byte at this index to the open tokens and the open key.
    fn feed_open(&mut self, held_back: &mut HeldBack, at: usize) {
        let byte = held_back.bytes()[at];
        let position = held_back.start() + at as u64;
        self.tokens.retain_mut(|token| {
            let step = token.next(byte);
            if step == ByteStep::Inside {
                held_back.mask(token.start, position + 1);
                // From now on only new bytes need a mask.
                token.start = position;
            }
            step != ByteStep::Outside
        });
        if let Some(key) = &mut self.key {
            match key.next(byte) {
                ByteStep::Outside | ByteStep::Open => self.key = None,
                ByteStep::Inside => held_back.mask(position, position + 1),
            }
        }
    }

    /// Whether two cursors will find the same from here on, although they see different bytes.
    pub(super) fn agrees(
        &self,
        other: &Self,
        automaton: &Automaton,
        held_back: &HeldBack,
        end: usize,
    ) -> bool {
        self == other && {
            let length = automaton.open_suffix(self.state).length as usize;
            let start_in = |view| held_back.start_before(end, length, view);
            length == 0 || start_in(View::Raw) == start_in(View::Visible)
        }
    }

    /// Position from which on the text may still become a secret.
    pub(super) fn open_from(&self, automaton: &Automaton, held_back: &HeldBack, view: View) -> u64 {
        let length = automaton.open_suffix(self.state).length as usize;
        let is_at_line_end = held_back.bytes().last() == Some(&b'\n');
        if is_at_line_end && length <= MAX_FREE_BYTES {
            return held_back.end();
        }
        self.earliest_of(held_back, length, 0, view)
    }

    /// The text that reveals too much. Line ends never do.
    pub(super) fn revealing(
        &self,
        automaton: &Automaton,
        held_back: &HeldBack,
        view: View,
    ) -> Option<(u64, u64)> {
        let length = automaton.open_suffix(self.state).revealing as usize;
        let start = self.earliest_of(held_back, length, REVEALING_TOKEN_BYTES, view);
        let end = held_back.end_of_text(view);
        (start < end).then_some((start, end))
    }

    /// The first of two positions: `length` bytes before the end, and the start of the first
    /// incomplete token of at least `token_length`. Skips text that is masked already.
    fn earliest_of(
        &self,
        held_back: &HeldBack,
        length: usize,
        token_length: u16,
        view: View,
    ) -> u64 {
        let end = held_back.bytes().len();
        let (value, _) = held_back.start_before(end, length, view);
        let open = self.tokens.iter().filter(|token| !token.is_complete);
        let open = open.filter(|token| token.length >= token_length);
        let token = open.map(|token| token.start).min();
        let first = token.map_or(value, |token| token.min(value));
        held_back.skip_mask(first.max(held_back.start()))
    }
}
