//! Redacts one stream of bytes that comes in pieces.
//!
//! Everything before the longest end of the text that may still become a secret is given out at
//! once. That end is held back, and when nothing follows it:
//!
//! - after [`SETTLE`] all of it goes out as it is, if it shows less of any secret than
//!   [`HARMLESS_BYTES`](super::table::HARMLESS_BYTES) and less than half: a prompt that ends like a
//!   secret begins is not changed. What shows more stays for now;
//! - after [`HOLD`], or at the end of the stream, that is given out as a mask. It may have been
//!   ordinary text; but a secret that a slow writer cut in two must not be read from its first half.
//!
//! Either way the search goes on where it was: if the rest of the secret comes, it is masked too.
//! One or two bytes before a line end are not held back, since most lines would end so by chance, and
//! line ends are not masked where nothing follows them.
//!
//! Carriage returns and newlines are passed over by the search, so a value is found across lines;
//! those within it go with it. Secrets that overlap or touch become one mask.
//!
//! A stream can also obey [`mask_command`](super::mask_command)s: then it learns values from its own
//! text, for itself and for all others of its redactor.
//!
//! Data: the bytes that are held back ([`Pending`]), at most [`Stream::limit`] (twice the longest
//! form, and the longest token). Guarantees: what is given out is the text with secrets replaced, in
//! order; whatever the pieces it is the same text, as long as no time limit passes within a secret and
//! no piece ends with the first two bytes of one and a line end. No form of a value is ever given out
//! whole.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aho_corasick::automaton::StateID;
use tokio::time::Instant;

use super::mask_command::{MaskCommands, Part};
use super::pending::Pending;
use super::shapes::{Key, MAX_OPEN_BYTES, Step, Token};
use super::table::{Found, Table};
use super::{MASK, Redactor, Refused, Shared};

/// After so long without more text, what is harmless is given out: as long as a line without its end
/// waits, which it can do at the same time.
const SETTLE: Duration = Duration::from_millis(100);

/// After so long it is masked. A program that writes a secret in pieces does so within this.
const HOLD: Duration = Duration::from_secs(1);

/// Bytes before a line end that are not held back: fewer than are harmful of the shortest secret.
const FREE_AT_LINE_END: usize = 2;

/// Bytes of a token behind its prefix that are too many to be shown.
const HARMFUL_TOKEN_BYTES: u16 = 4;

/// One stream on its way through a [`Redactor`](super::Redactor).
pub struct Stream {
    shared: Arc<Shared>,
    table: Option<Arc<Table>>,
    state: StateID,
    pending: Pending,
    tokens: Vec<Token>,
    key: Option<Key>,
    held: Option<Held>,
    /// None where mask commands are text like any other.
    commands: Option<MaskCommands>,
    /// Why values of mask commands were refused, as far as it was told.
    told: Vec<Refused>,
}

/// Since when the text is held back from which place on.
#[derive(Debug, Clone, Copy)]
struct Held {
    start: u64,
    since: Instant,
    settled: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("held_bytes", &self.pending.bytes().len())
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let table = shared.table();
        Self {
            state: table.as_deref().map(Table::start).unwrap_or_default(),
            table,
            shared,
            pending: Pending::new(),
            tokens: Vec::new(),
            key: None,
            held: None,
            commands: None,
            told: Vec::new(),
        }
    }

    /// Obeys `::add-mask::VALUE` on a line of its own: the value is never given out there, and it is
    /// redacted from then on, in this stream and from the next write on in all others of its redactor.
    /// A value that [`Redactor::add`] refuses is only taken out there, and one warning tells why.
    #[must_use]
    pub fn obeying_mask_commands(mut self) -> Self {
        self.commands = Some(MaskCommands::default());
        self
    }

    /// Takes in what was read, and appends to `out` what can be shown by now.
    pub fn push(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<u8>) {
        let Some(mut commands) = self.commands.take() else {
            return self.push_text(bytes, now, out);
        };
        let mut rest = bytes;
        while let Some(part) = commands.next(&mut rest) {
            match part {
                Part::Text(text) => self.push_text(text, now, out),
                Part::Masked => self.push_text(MASK, now, out),
                Part::Value(value) => self.learn(&value),
            }
        }
        self.commands = Some(commands);
    }

    /// Redacts a value that a mask command has named.
    fn learn(&mut self, value: &[u8]) {
        let redactor = Redactor {
            shared: Arc::clone(&self.shared),
        };
        if let Err(reason) = redactor.add(value)
            && !self.told.contains(&reason)
        {
            tracing::warn!("not redacted: a value of ::add-mask:: ({reason})");
            self.told.push(reason);
        }
    }

    fn push_text(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<u8>) {
        let known = self.pending.bytes().len();
        self.pending.push(bytes);
        let from = if self.renew() { 0 } else { known };
        self.scan(from);
        self.pending.give(self.open_from(), out);
        self.held = (!self.pending.bytes().is_empty()).then(|| {
            let known = self.held.filter(|held| held.start == self.pending.base());
            known.unwrap_or(Held {
                start: self.pending.base(),
                since: now,
                settled: false,
            })
        });
        if self.pending.bytes().len() > self.limit() {
            self.end_hold(out);
        }
        self.tick(now, out);
    }

    /// When [`tick`](Self::tick) has something to do; never, if nothing is held back.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let held = self.held?;
        Some(held.since + if held.settled { HOLD } else { SETTLE })
    }

    /// Gives out what was held back for long enough.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Some(held) = self.held
            && !held.settled
            && now >= held.since + SETTLE
        {
            self.pending.give(self.harmful_from(), out);
            self.held = (!self.pending.bytes().is_empty()).then_some(Held {
                start: self.pending.base(),
                settled: true,
                ..held
            });
        }
        if self.held.is_some_and(|held| now >= held.since + HOLD) {
            self.end_hold(out);
        }
    }

    /// Gives out the rest, at the end of the stream.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if let Some(value) = self.commands.take().and_then(MaskCommands::finish) {
            self.learn(&value);
        }
        self.end_hold(out);
    }

    /// Gives out the rest of a text that is complete: an end that looks like the beginning of a
    /// secret is none.
    pub(super) fn finish_whole(mut self, out: &mut Vec<u8>) {
        self.pending.give(self.pending.end(), out);
    }

    /// Masks what would show too much, and gives out everything.
    fn end_hold(&mut self, out: &mut Vec<u8>) {
        let end = self.pending.end_of_text();
        self.pending.mark(self.harmful_from(), end);
        self.pending.give(self.pending.end(), out);
        self.held = None;
    }

    /// Bytes that are held back at most.
    fn limit(&self) -> usize {
        let longest = self.table.as_deref().map_or(0, Table::longest);
        2 * longest + usize::from(MAX_OPEN_BYTES)
    }

    /// Changes to the newest table; true if what is held back must be looked at again.
    fn renew(&mut self) -> bool {
        let newest = self.shared.table();
        let same = match (&newest, &self.table) {
            (Some(newest), Some(table)) => Arc::ptr_eq(newest, table),
            (newest, table) => newest.is_none() && table.is_none(),
        };
        if !same {
            self.state = newest.as_deref().map(Table::start).unwrap_or_default();
            self.table = newest;
            // Those that are not complete are found once more in what is held back.
            self.tokens.retain(|token| token.complete);
        }
        !same
    }

    fn scan(&mut self, from: usize) {
        let Some(table) = self.table.clone() else {
            return;
        };
        let mut at = from;
        while at < self.pending.bytes().len() {
            let until = match self.tokens.is_empty() && self.key.is_none() {
                true => self.pending.bytes().len(),
                // What is open looks at each byte.
                false => {
                    self.feed(at);
                    at + 1
                }
            };
            let (taken, state, matched) = table.run(self.state, &self.pending.bytes()[at..until]);
            at += taken;
            self.state = state;
            if matched {
                self.matched(&table, at);
            }
        }
    }

    /// Takes in what was found to end at `end` of the text.
    fn matched(&mut self, table: &Table, end: usize) {
        let until = self.pending.base() + end as u64;
        for (found, length) in table.found(self.state) {
            let start = self.pending.back(end, length);
            match found {
                Found::Value => self.pending.mark(start, until),
                Found::Prefix(shape) => {
                    let unbroken = !self.pending.has_line_end(start, until);
                    // Of a prefix that is partly given out only the rest is here.
                    let whole = start + length as u64 == until;
                    let in_word = shape.ambiguous && whole && self.pending.is_word_at(start);
                    // One that began earlier is complete no later.
                    let known = self.tokens.iter().any(|token| token.is_of(shape));
                    if unbroken && !in_word && !known {
                        self.tokens.push(Token::new(start, shape));
                    }
                }
                Found::KeyBegin => self.key = Some(Key::default()),
                Found::KeyEnd => {
                    if let Some(key) = &mut self.key {
                        key.ending = true;
                    }
                }
            }
        }
    }

    /// Shows a byte to the tokens and the key that are open.
    fn feed(&mut self, at: usize) {
        let byte = self.pending.bytes()[at];
        let place = self.pending.base() + at as u64;
        let mut complete = Vec::new();
        self.tokens.retain_mut(|token| {
            let step = token.take(byte);
            if step == Step::Inside {
                complete.push(token.start);
                // From now on only what is new has to be masked.
                token.start = place;
            }
            step != Step::Over
        });
        for start in complete {
            self.pending.mark(start, place + 1);
        }
        if let Some(key) = &mut self.key {
            match key.take(byte) {
                Step::Over | Step::Open => self.key = None,
                Step::Inside => self.pending.mark(place, place + 1),
            }
        }
    }

    /// Where the text begins that may still become a secret.
    fn open_from(&self) -> u64 {
        let Some(table) = &self.table else {
            return self.pending.end();
        };
        let length = table.ends(self.state).length;
        let at_line_end = self.pending.bytes().last() == Some(&b'\n');
        if at_line_end && length <= FREE_AT_LINE_END {
            return self.pending.end();
        }
        self.first_of(length, 0)
    }

    /// Where the text begins that must not be shown as it is; line ends always can.
    fn harmful_from(&self) -> u64 {
        let Some(table) = &self.table else {
            return self.pending.end();
        };
        let start = self.first_of(table.ends(self.state).harmful, HARMFUL_TOKEN_BYTES);
        let is_text = start < self.pending.end_of_text();
        if is_text { start } else { self.pending.end() }
    }

    /// Where the first of two begins: so many bytes before the end, and the first token that is not
    /// complete but has so many bytes. What is masked already does not count.
    fn first_of(&self, length: usize, token_length: u16) -> u64 {
        let value = self.pending.back(self.pending.bytes().len(), length);
        let open = self.tokens.iter().filter(|token| !token.complete);
        let open = open.filter(|token| token.length >= token_length);
        let token = open.map(|token| token.start).min();
        let first = token.map_or(value, |token| token.min(value));
        self.pending.outside_marks(first.max(self.pending.base()))
    }
}
