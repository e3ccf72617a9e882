//! [`RedactStream`]: redacts a stream of bytes that arrives in pieces.
//!
//! All text is released at once, except the longest suffix that may still become a secret. That
//! suffix is held back. If nothing follows it:
//!
//! - after [`SETTLE_TIME`] it is released unchanged if it reveals less of any secret than
//!   [`MAX_HARMLESS_BYTES`](super::automaton::MAX_HARMLESS_BYTES) and less than half, so a prompt
//!   that happens to end like the start of a secret is not changed. The part that reveals more
//!   stays;
//! - after [`MAX_HOLD_TIME`], or at the end of the stream, that part is released as a mask. It may
//!   have been ordinary text; but if a slow writer splits a secret, its first half must not be
//!   readable.
//!
//! In both cases the search continues where it was: if the rest of the secret arrives, it is masked
//! too. One or two bytes before a line end are not held back, since most lines would end so by
//! chance, and line ends at the end of the held text are not masked.
//!
//! The search skips carriage returns and newlines, so it finds a value across lines; line ends
//! within the value are masked with it. Secrets that overlap or touch become one mask.
//!
//! A stream can also follow [`add_mask`](super::add_mask) commands: it then learns values from its
//! own text, for itself and for all other streams of its redactor.
//!
//! Data: the bytes that are held back ([`HeldBack`]), at most [`RedactStream::max_held_bytes`]
//! (twice the longest form, plus the longest token). Guarantees: the released text is the text with
//! secrets replaced, in order. It does not depend on how the text was cut into pieces, unless a
//! time limit passes within a secret, or a piece ends with the first two bytes of one and a line
//! end. No form of a value is ever released as a whole.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aho_corasick::automaton::StateID;
use tokio::time::Instant;

use super::add_mask::{MaskCommands, Part};
use super::automaton::{Automaton, PatternKind};
use super::held_back::HeldBack;
use super::redactor::{Redactor, Shared};
use super::secret_value::{InvalidSecretValue, MASK};
use super::token_formats::{ByteStep, MAX_OPEN_BYTES, OpenKey, OpenToken};

/// Time without more text after which harmless text is released: as long as an unfinished line
/// waits for its end, which it can do at the same time.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Time after which the rest is masked. A program that writes a secret in pieces does so within it.
const MAX_HOLD_TIME: Duration = Duration::from_secs(1);

/// Bytes before a line end that are not held back: fewer than reveal too much of the shortest
/// secret.
const MAX_FREE_BYTES: usize = 2;

/// Bytes of a token behind its prefix that reveal too much.
const REVEALING_TOKEN_BYTES: u16 = 4;

/// One stream that a [`Redactor`](super::Redactor) redacts.
pub struct RedactStream {
    shared: Arc<Shared>,
    automaton: Option<Arc<Automaton>>,
    state: StateID,
    held_back: HeldBack,
    tokens: Vec<OpenToken>,
    key: Option<OpenKey>,
    hold: Option<Hold>,
    /// None if the stream does not follow mask commands.
    commands: Option<MaskCommands>,
    /// The rejections of named values that a warning has reported.
    warned: Vec<InvalidSecretValue>,
}

/// Since when, and from which position on, text is held back.
#[derive(Debug, Clone, Copy)]
struct Hold {
    start: u64,
    since: Instant,
    has_settled: bool,
}

impl fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactStream")
            .field("held_bytes", &self.held_back.bytes().len())
            .finish_non_exhaustive()
    }
}

impl Redactor {
    /// A stream that is redacted piece by piece.
    pub fn stream(&self) -> RedactStream {
        RedactStream::new(Arc::clone(&self.shared))
    }
}

impl RedactStream {
    fn new(shared: Arc<Shared>) -> Self {
        let automaton = shared.automaton();
        Self {
            state: automaton
                .as_deref()
                .map(Automaton::start)
                .unwrap_or_default(),
            automaton,
            shared,
            held_back: HeldBack::new(),
            tokens: Vec::new(),
            key: None,
            hold: None,
            commands: None,
            warned: Vec::new(),
        }
    }

    /// Makes the stream follow `::add-mask::VALUE` on a line of its own: the value is removed
    /// there, and redacted from then on in this stream, and from their next write on in all others
    /// of the redactor. A value that [`Redactor::add`] rejects is only removed there, and one
    /// warning says why.
    #[must_use]
    pub fn with_mask_commands(mut self) -> Self {
        self.commands = Some(MaskCommands::default());
        self
    }

    /// Adds bytes, and appends to `out` what can be released.
    pub fn push(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<u8>) {
        let Some(mut commands) = self.commands.take() else {
            return self.push_text(bytes, now, out);
        };
        let mut rest = bytes;
        while let Some(part) = commands.next(&mut rest) {
            match part {
                Part::Text(text) => self.push_text(text, now, out),
                Part::Masked => self.push_text(MASK, now, out),
                Part::Value(value) => self.add_named(&value),
            }
        }
        self.commands = Some(commands);
    }

    /// Adds a value that a mask command names.
    fn add_named(&mut self, value: &[u8]) {
        let redactor = Redactor {
            shared: Arc::clone(&self.shared),
        };
        if let Err(reason) = redactor.add(value)
            && !self.warned.contains(&reason)
        {
            tracing::warn!("not redacted: a value of ::add-mask:: ({reason})");
            self.warned.push(reason);
        }
    }

    fn push_text(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<u8>) {
        let length_before = self.held_back.bytes().len();
        self.held_back.push(bytes);
        let from = if self.update_automaton() {
            0
        } else {
            length_before
        };
        self.scan(from);
        self.held_back.release(self.open_from(), out);
        self.hold = (!self.held_back.bytes().is_empty()).then(|| {
            let current = self
                .hold
                .filter(|hold| hold.start == self.held_back.start());
            current.unwrap_or(Hold {
                start: self.held_back.start(),
                since: now,
                has_settled: false,
            })
        });
        if self.held_back.bytes().len() > self.max_held_bytes() {
            self.release_all(out);
        }
        self.tick(now, out);
    }

    /// When to call [`tick`](Self::tick); none if nothing is held back.
    pub fn deadline(&self) -> Option<Instant> {
        let hold = self.hold?;
        Some(match hold.has_settled {
            true => hold.since + MAX_HOLD_TIME,
            false => hold.since + SETTLE_TIME,
        })
    }

    /// Releases text whose time has passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Some(hold) = self.hold
            && !hold.has_settled
            && now >= hold.since + SETTLE_TIME
        {
            self.held_back.release(self.revealing_from(), out);
            self.hold = (!self.held_back.bytes().is_empty()).then_some(Hold {
                start: self.held_back.start(),
                has_settled: true,
                ..hold
            });
        }
        if self
            .hold
            .is_some_and(|hold| now >= hold.since + MAX_HOLD_TIME)
        {
            self.release_all(out);
        }
    }

    /// Releases the rest, at the end of the stream.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if let Some(value) = self.commands.take().and_then(MaskCommands::finish) {
            self.add_named(&value);
        }
        self.release_all(out);
    }

    /// Releases the rest of a complete text unmasked: what looks like the start of a secret at its
    /// end is not one.
    pub(super) fn finish_whole(mut self, out: &mut Vec<u8>) {
        self.held_back.release(self.held_back.end(), out);
    }

    /// Masks what would reveal too much, and releases everything.
    fn release_all(&mut self, out: &mut Vec<u8>) {
        let end = self.held_back.end_of_text();
        self.held_back.mask(self.revealing_from(), end);
        self.held_back.release(self.held_back.end(), out);
        self.hold = None;
    }

    /// Longest text that is held back.
    fn max_held_bytes(&self) -> usize {
        let longest = self
            .automaton
            .as_deref()
            .map_or(0, Automaton::max_pattern_bytes);
        2 * longest + usize::from(MAX_OPEN_BYTES)
    }

    /// Switches to the newest automaton. Returns whether held text must be searched again.
    fn update_automaton(&mut self) -> bool {
        let newest = self.shared.automaton();
        let same = match (&newest, &self.automaton) {
            (Some(newest), Some(automaton)) => Arc::ptr_eq(newest, automaton),
            (newest, automaton) => newest.is_none() && automaton.is_none(),
        };
        if !same {
            self.state = newest.as_deref().map(Automaton::start).unwrap_or_default();
            self.automaton = newest;
            // Incomplete tokens will be found again in the held text.
            self.tokens.retain(|token| token.is_complete);
        }
        !same
    }

    fn scan(&mut self, from: usize) {
        let Some(automaton) = self.automaton.clone() else {
            return;
        };
        let mut at = from;
        while at < self.held_back.bytes().len() {
            let until = match self.tokens.is_empty() && self.key.is_none() {
                true => self.held_back.bytes().len(),
                // Open tokens and keys see each byte.
                false => {
                    self.feed_open(at);
                    at + 1
                }
            };
            let (length, state, matched) =
                automaton.run(self.state, &self.held_back.bytes()[at..until]);
            at += length;
            self.state = state;
            if matched {
                self.on_match(&automaton, at);
            }
        }
    }

    /// Handles the patterns that end at the index `end`.
    fn on_match(&mut self, automaton: &Automaton, end: usize) {
        let until = self.held_back.start() + end as u64;
        for (kind, length) in automaton.matches(self.state) {
            let start = self.held_back.start_before(end, length);
            match kind {
                PatternKind::Value => self.held_back.mask(start, until),
                PatternKind::Prefix(format) => {
                    let is_unbroken = !self.held_back.has_line_end(start, until);
                    // If part of the prefix was released, only the rest is here.
                    let is_whole = start + length as u64 == until;
                    let is_in_word =
                        format.is_ambiguous && is_whole && self.held_back.follows_word(start);
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
    fn feed_open(&mut self, at: usize) {
        let byte = self.held_back.bytes()[at];
        let position = self.held_back.start() + at as u64;
        let mut complete = Vec::new();
        self.tokens.retain_mut(|token| {
            let step = token.next(byte);
            if step == ByteStep::Inside {
                complete.push(token.start);
                // From now on only new bytes need a mask.
                token.start = position;
            }
            step != ByteStep::Outside
        });
        for start in complete {
            self.held_back.mask(start, position + 1);
        }
        if let Some(key) = &mut self.key {
            match key.next(byte) {
                ByteStep::Outside | ByteStep::Open => self.key = None,
                ByteStep::Inside => self.held_back.mask(position, position + 1),
            }
        }
    }

    /// Position from which on the text may still become a secret.
    fn open_from(&self) -> u64 {
        let Some(automaton) = &self.automaton else {
            return self.held_back.end();
        };
        let length = automaton.open_suffix(self.state).length;
        let is_at_line_end = self.held_back.bytes().last() == Some(&b'\n');
        if is_at_line_end && length <= MAX_FREE_BYTES {
            return self.held_back.end();
        }
        self.earliest_of(length, 0)
    }

    /// Position from which on the text reveals too much. Line ends never do.
    fn revealing_from(&self) -> u64 {
        let Some(automaton) = &self.automaton else {
            return self.held_back.end();
        };
        let start = self.earliest_of(
            automaton.open_suffix(self.state).revealing,
            REVEALING_TOKEN_BYTES,
        );
        let is_text = start < self.held_back.end_of_text();
        if is_text { start } else { self.held_back.end() }
    }

    /// The first of two positions: `length` bytes before the end, and the start of the first
    /// incomplete token of at least `token_length`. Skips text that is masked already.
    fn earliest_of(&self, length: usize, token_length: u16) -> u64 {
        let value = self
            .held_back
            .start_before(self.held_back.bytes().len(), length);
        let open = self.tokens.iter().filter(|token| !token.is_complete);
        let open = open.filter(|token| token.length >= token_length);
        let token = open.map(|token| token.start).min();
        let first = token.map_or(value, |token| token.min(value));
        self.held_back.skip_mask(first.max(self.held_back.start()))
    }
}
