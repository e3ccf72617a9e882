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
//! within the value are masked with it. It also skips escape sequences, but finds what they
//! contain, see [`super::cursor`]; colours within a mask are kept. Secrets that overlap or touch
//! become one mask.
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

use tokio::time::Instant;

use super::add_mask::{MaskCommands, Part};
use super::automaton::Automaton;
use super::cursor::Cursor;
use super::escape_sequences::EscapeParser;
use super::held_back::{HeldBack, View};
use super::redactor::{Redactor, Shared};
use super::secret_value::{InvalidSecretValue, MASK};
use super::token_formats::MAX_OPEN_BYTES;

/// Time without more text after which harmless text is released: as long as an unfinished line
/// waits for its end, which it can do at the same time.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Time after which the rest is masked. A program that writes a secret in pieces does so within it.
const MAX_HOLD_TIME: Duration = Duration::from_secs(1);

/// Bytes after which two cursors are compared: usually they agree one byte behind a sequence.
const BLOCK_BYTES: usize = 4;

/// One stream that a [`Redactor`](super::Redactor) redacts.
pub struct RedactStream {
    shared: Arc<Shared>,
    automaton: Option<Arc<Automaton>>,
    held_back: HeldBack,
    escapes: EscapeParser,
    /// Sees all bytes.
    raw: Cursor,
    /// Sees what a terminal shows; none while it would find the same.
    visible: Option<Cursor>,
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
        let start = automaton.as_deref().map(Automaton::start);
        Self {
            automaton,
            shared,
            held_back: HeldBack::new(),
            escapes: EscapeParser::default(),
            raw: Cursor::new(start.unwrap_or_default()),
            visible: None,
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
        let hides_earlier = self.escapes.mark_hidden(&mut self.held_back, length_before);
        let from = match self.update_automaton() || hides_earlier {
            true => self.restart(),
            false => length_before,
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
            let from = self.revealing().map(|(start, _)| start).min();
            let end = self.held_back.end();
            self.held_back.release(from.unwrap_or(end), out);
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
        for (start, end) in self.revealing().collect::<Vec<_>>() {
            self.held_back.mask(start, end);
        }
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
        self.automaton = newest;
        !same
    }

    /// Goes back to the start of the held text, and returns its index.
    fn restart(&mut self) -> usize {
        let start = self.automaton.as_deref().map(Automaton::start);
        for cursor in [&mut self.raw].into_iter().chain(&mut self.visible) {
            cursor.restart(start.unwrap_or_default());
        }
        0
    }

    /// Searches the held text from this index on.
    fn scan(&mut self, from: usize) {
        let Some(automaton) = self.automaton.clone() else {
            return;
        };
        let mut at = from;
        let end = self.held_back.bytes().len();
        while at < end {
            let hidden = self
                .held_back
                .next_hidden(self.held_back.start() + at as u64);
            let text_end = hidden.map_or(end, |hidden| self.held_back.index(hidden.start).max(at));
            self.read_text(&automaton, at, text_end);
            at = text_end;
            if let Some(hidden) = hidden {
                let visible = self.visible.get_or_insert_with(|| self.raw.clone());
                if hidden.moves {
                    visible.end_tokens();
                }
                let hidden_end = self.held_back.index(hidden.end);
                let range = (at, hidden_end);
                self.raw
                    .read(&automaton, &mut self.held_back, range, View::Raw);
                at = hidden_end;
            }
        }
    }

    /// Searches text that is not hidden.
    fn read_text(&mut self, automaton: &Automaton, from: usize, end: usize) {
        let mut at = from;
        while at < end {
            let agrees =
                |visible: &Cursor| visible.agrees(&self.raw, automaton, &self.held_back, at);
            if self.visible.as_ref().is_some_and(agrees) {
                self.visible = None;
            }
            let Some(visible) = &mut self.visible else {
                let range = (at, end);
                self.raw
                    .read(automaton, &mut self.held_back, range, View::Raw);
                return;
            };
            let until = end.min(at + BLOCK_BYTES);
            let range = (at, until);
            self.raw
                .read(automaton, &mut self.held_back, range, View::Raw);
            visible.read(automaton, &mut self.held_back, range, View::Visible);
            at = until;
        }
    }

    /// The cursors, each with what it sees.
    fn cursors(&self) -> impl Iterator<Item = (&Cursor, View)> {
        let visible = self.visible.iter().map(|cursor| (cursor, View::Visible));
        [(&self.raw, View::Raw)].into_iter().chain(visible)
    }

    /// Position from which on the text may still become a secret.
    fn open_from(&self) -> u64 {
        let automaton = self.automaton.as_deref();
        let open = automaton.into_iter().flat_map(|automaton| {
            let cursors = self.cursors();
            cursors.map(move |(cursor, view)| cursor.open_from(automaton, &self.held_back, view))
        });
        open.min().unwrap_or(self.held_back.end())
    }

    /// The text that reveals too much, by each cursor.
    fn revealing(&self) -> impl Iterator<Item = (u64, u64)> {
        self.automaton
            .as_deref()
            .into_iter()
            .flat_map(move |automaton| {
                let cursors = self.cursors();
                cursors.filter_map(move |(cursor, view)| {
                    cursor.revealing(automaton, &self.held_back, view)
                })
            })
    }
}
