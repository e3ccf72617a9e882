//! Messages that say what a reader needs to judge them: which one it is, and when it was due.
//!
//! A mark is `@@<nanoseconds, 16 hex digits>.<number, 8 hex digits>@`, and stands in the text of an `output` event of
//! [`MESSAGE_BYTES`]. Moments count from the first one that this process asked for, so that only one process
//! can both write and judge them.

use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;
use runcast_common::protocol::event::{self, Kind, Text};

/// Bytes of one message: an event line, without its newline.
pub const MESSAGE_BYTES: usize = 256;

/// What a mark begins with, and nothing else of a message holds.
const STAMP_PREFIX: &[u8] = b"@@";

/// Bytes of a mark.
const STAMP_BYTES: usize = STAMP_PREFIX.len() + 16 + 1 + 8 + 1;

static CLOCK_START: LazyLock<Instant> = LazyLock::new(Instant::now);

static PREFIX_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(STAMP_PREFIX));

/// Nanoseconds since the beginning of marks in this process.
#[must_use]
pub fn now_ns() -> u64 {
    u64::try_from(CLOCK_START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the message was due, as [`now_ns`] counts.
    pub due_ns: u64,
    /// Its number, from 1, in its run or channel.
    pub number: u64,
}

/// The event line of a message, without its newline.
///
/// # Panics
/// Never with a number below 2^32: the text is as long as it was measured to be.
#[must_use]
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
    // Two bytes of JSON stand for the newline at its end.
    let missing = MESSAGE_BYTES - line(&text).len() - 2;
    text.extend(std::iter::repeat_n('.', missing));
    text.push('\n');
    line(&text)
}

/// The whole marks in these bytes, in their order.
pub fn stamps(bytes: &[u8]) -> impl Iterator<Item = Stamp> {
    positions(bytes).filter_map(|at| stamp_at(bytes, at))
}

/// Where whole marks begin.
pub(crate) fn positions(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let end = bytes.len();
    PREFIX_FINDER
        .find_iter(bytes)
        .take_while(move |at| at + STAMP_BYTES <= end)
}

/// The mark that begins here.
pub(crate) fn stamp_at(bytes: &[u8], at: usize) -> Option<Stamp> {
    parse(bytes.get(at..at + STAMP_BYTES)?)
}

/// Where the piece begins that may hold the beginning of a mark whose rest is still to come, and no whole one.
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
