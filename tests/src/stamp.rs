//! Messages with a stamp: their number, and the time at which they were due.
//!
//! A stamp is `@@<nanoseconds, 16 hex digits>.<number, 8 hex digits>@` in the text of an `output`
//! event of [`MESSAGE_BYTES`]. The clock starts with its first use in this process, so the same
//! process must write and read the stamps.

use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;
use runcast_common::protocol::event::{self, Kind, Text};

/// Length of one message: an event line, without its newline.
pub const MESSAGE_BYTES: usize = 256;

/// Start of a stamp; the rest of a message does not contain it.
const STAMP_PREFIX: &[u8] = b"@@";

/// Length of a stamp.
const STAMP_BYTES: usize = STAMP_PREFIX.len() + 16 + 1 + 8 + 1;

static CLOCK_START: LazyLock<Instant> = LazyLock::new(Instant::now);

static PREFIX_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(STAMP_PREFIX));

/// Nanoseconds since the first use of the clock in this process.
pub fn now_ns() -> u64 {
    u64::try_from(CLOCK_START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The content of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the message was due, by the clock of [`now_ns`].
    pub due_ns: u64,
    /// Its number in its run or channel, from 1.
    pub number: u64,
}

/// The event line of a message, without its newline. The number must be below 2^32.
pub fn message(mark: Stamp) -> Vec<u8> {
    let mut text = format!("@@{:016x}.{:08x}@", mark.due_ns, mark.number);
    let line = |text: &str| {
        let mut line = Vec::with_capacity(MESSAGE_BYTES + 1);
        let payload = Text {
            text: Some(text),
            ..Text::default()
        };
        event::write_line(&mut line, Kind::Output, 0, event::now_ms(), &payload)
            .expect("a short event");
        line.pop();
        line
    };
    // JSON takes two bytes for the final newline.
    let missing = MESSAGE_BYTES - line(&text).len() - 2;
    text.extend(std::iter::repeat_n('.', missing));
    text.push('\n');
    line(&text)
}

/// The complete stamps in these bytes, in order.
pub fn stamps(bytes: &[u8]) -> impl Iterator<Item = Stamp> {
    positions(bytes).filter_map(|at| stamp_at(bytes, at))
}

/// The offsets of complete stamps.
pub(crate) fn positions(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let end = bytes.len();
    PREFIX_FINDER
        .find_iter(bytes)
        .take_while(move |at| at + STAMP_BYTES <= end)
}

/// The stamp at this offset.
pub(crate) fn stamp_at(bytes: &[u8], at: usize) -> Option<Stamp> {
    parse(bytes.get(at..at + STAMP_BYTES)?)
}

/// The offset of the tail that may hold the start of an incomplete stamp, but no complete one.
pub(crate) fn incomplete_tail(bytes: &[u8]) -> usize {
    bytes.len().saturating_sub(STAMP_BYTES - 1)
}

fn parse(mark: &[u8]) -> Option<Stamp> {
    let due_ns = parse_hex(mark.get(2..18)?)?;
    let number = parse_hex(mark.get(19..27)?)?;
    (mark[18] == b'.' && mark[27] == b'@').then_some(Stamp { due_ns, number })
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}
