//! How an agent sends calls of the append script to a gateway: the body of
//! `POST /v1/runs/{run}/append`.
//!
//! A body is a sequence of calls of one producer, in the order in which the gateway must make them.
//! Each is a line of six words separated by single spaces, and then as many bytes as its last word
//! says:
//!
//! ```text
//! <base> <acked> <first> <count> <b|z> <length>\n<body>
//! ```
//!
//! The words mean what the arguments of `append.lua` with these names mean; `b` and `z` are the
//! [encodings](super::encoding) of an entry. One request carries several calls, so that batches
//! travel together however long the way is, and reach Redis in order: requests may overtake each
//! other, calls within one cannot.
//!
//! Bounds: [`MAX_CALLS`] in a body of at most [`MAX_CALLS_BYTES`]; per call the bounds of an entry.

use std::borrow::Cow;
use std::io::Write as _;

use crate::protocol::encoding::{self, Body, InvalidBody, MAX_BODY_BYTES, PLAIN_FIELD, ZSTD_FIELD};
use crate::protocol::limits::MAX_ENTRY_EVENTS;

/// Version of what an agent and a gateway tell each other when the agent publishes. Both state it
/// in [`PROTOCOL_HEADER`], and a gateway refuses every other version.
pub const PROTOCOL_VERSION: u32 = 1;

/// The header that states the [`PROTOCOL_VERSION`].
pub const PROTOCOL_HEADER: &str = "runcast-protocol";

/// Media type of the body.
pub const MEDIA_TYPE: &str = "application/octet-stream";

/// Calls that a publisher has in flight: those of the request under way, and those of the next.
pub const MAX_IN_FLIGHT: usize = 24;

/// Bound on the calls of one body: as many as a publisher has in flight, and queries of the state.
pub const MAX_CALLS: usize = 32;

/// Bound on the bytes of one body. A publisher begins no further call above
/// [`FULL_REQUEST_BYTES`], so the last call may exceed that by a whole body.
pub const MAX_CALLS_BYTES: usize = FULL_REQUEST_BYTES + MAX_BODY_BYTES + MAX_LINE_BYTES;

/// Size from which a publisher sends a request. The body of one takes at most 20 s: so a way of
/// half a megabit a second is enough.
pub const FULL_REQUEST_BYTES: usize = 512 * 1024;

/// Bound on seqs and epochs: Lua and JavaScript represent integers below exactly.
const MAX_NUMBER: u64 = 1 << 53;

/// Longest line before a body: four numbers of 16 digits, and little else.
const MAX_LINE_BYTES: usize = 100;

/// One call of the append script, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendCall<'a> {
    /// Highest producer seq known to be in Postgres.
    pub base: u64,
    /// Highest producer seq that Redis has acknowledged.
    pub acked: u64,
    /// Producer seq of the first event of the body, from 1.
    pub first: u64,
    /// Events in the body; 0 with an empty body only queries the state.
    pub count: u64,
    /// Event lines, each with its newline.
    pub body: Body<'a>,
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCalls {
    /// There is no call in it.
    #[error("the body has no call")]
    Empty,
    /// There are more calls than a publisher has in flight.
    #[error("the body has more than {MAX_CALLS} calls")]
    TooMany,
    /// The line before a body does not have its form.
    #[error(
        "call {0} does not begin with a line of the form `<base> <acked> <first> <count> <b|z> <length>`, with numbers below 2^53"
    )]
    Line(usize),
    /// The body is shorter than its line says.
    #[error("call {0} ends before the end of its body")]
    Short(usize),
    /// The body is longer than an entry may be.
    #[error("call {0} has a body of {1} bytes, the limit is {MAX_BODY_BYTES}")]
    TooLong(usize, usize),
    /// The body cannot be decompressed.
    #[error("call {0}: {1}")]
    Body(usize, InvalidBody),
    /// The body does not have as many lines as its line says.
    #[error(
        "call {0} says that it has {1} events of at most {MAX_ENTRY_EVENTS}, but its body has {2} lines"
    )]
    Count(usize, u64, usize),
}

impl AppendCall<'_> {
    /// Appends the call to a body of calls.
    pub fn write(&self, calls: &mut Vec<u8>) {
        let Self {
            base,
            acked,
            first,
            count,
            body,
        } = self;
        let (field, bytes) = (body.field(), body.bytes());
        calls.reserve(MAX_LINE_BYTES + bytes.len());
        // Writing to a vector does not fail.
        let written = writeln!(
            calls,
            "{base} {acked} {first} {count} {field} {}",
            bytes.len()
        );
        debug_assert!(written.is_ok());
        calls.extend_from_slice(bytes);
    }
}

/// Parses a body, and checks that each call has as many events as it says.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<AppendCall<'_>>, InvalidCalls> {
    let mut calls = Vec::new();
    while !bytes.is_empty() {
        let number = calls.len() + 1;
        if number > MAX_CALLS {
            return Err(InvalidCalls::TooMany);
        }
        let end = memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_LINE_BYTES)]);
        let end = end.ok_or(InvalidCalls::Line(number))?;
        let line = std::str::from_utf8(&bytes[..end]).ok();
        let line = line.and_then(CallLine::parse);
        let line = line.ok_or(InvalidCalls::Line(number))?;
        bytes = &bytes[end + 1..];
        if line.length > MAX_BODY_BYTES {
            return Err(InvalidCalls::TooLong(number, line.length));
        }
        let Some((body, rest)) = bytes.split_at_checked(line.length) else {
            return Err(InvalidCalls::Short(number));
        };
        bytes = rest;
        let call = line.with_body(body);
        check_count(number, &call)?;
        calls.push(call);
    }
    match calls.is_empty() {
        true => Err(InvalidCalls::Empty),
        false => Ok(calls),
    }
}

/// The line before a body.
struct CallLine {
    numbers: [u64; 4],
    is_compressed: bool,
    length: usize,
}

impl CallLine {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = number_below_2_53(words.next()?)?;
        }
        let is_compressed = match words.next()? {
            PLAIN_FIELD => false,
            ZSTD_FIELD => true,
            _ => return None,
        };
        let length = usize::try_from(number_below_2_53(words.next()?)?).ok()?;
        words.next().is_none().then_some(Self {
            numbers,
            is_compressed,
            length,
        })
    }

    fn with_body(self, body: &[u8]) -> AppendCall<'_> {
        let [base, acked, first, count] = self.numbers;
        AppendCall {
            base,
            acked,
            first,
            count,
            body: match self.is_compressed {
                true => Body::Zstd(Cow::Borrowed(body)),
                false => Body::Plain(body),
            },
        }
    }
}

fn number_below_2_53(word: &str) -> Option<u64> {
    // `u64::from_str` would accept a plus sign.
    let is_decimal = word.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_decimal.then(|| word.parse().ok()).flatten()?;
    (number < MAX_NUMBER).then_some(number)
}

/// A wrong count would move every later id of the run.
fn check_count(number: usize, call: &AppendCall<'_>) -> Result<(), InvalidCalls> {
    let decompressed;
    let lines: &[u8] = match &call.body {
        Body::Plain(lines) => lines,
        Body::Zstd(frame) => {
            let body = encoding::decompress(frame);
            decompressed = body.map_err(|error| InvalidCalls::Body(number, error))?;
            &decompressed
        }
    };
    let found = memchr::memchr_iter(b'\n', lines).count();
    let is_whole = lines.last().is_none_or(|last| *last == b'\n');
    let fits = u64::try_from(found) == Ok(call.count) && found <= MAX_ENTRY_EVENTS;
    let has_seqs = call.count == 0 || (call.first >= 1 && call.first + call.count <= MAX_NUMBER);
    if !has_seqs {
        return Err(InvalidCalls::Line(number));
    }
    match is_whole && fits {
        true => Ok(()),
        false => Err(InvalidCalls::Count(number, call.count, found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: Body<'_>, count: u64) -> AppendCall<'_> {
        AppendCall {
            base: 1,
            acked: 2,
            first: 3,
            count,
            body,
        }
    }

    #[test]
    fn calls_round_trip() {
        let lines = b"{\"kind\":\"log\"}\n".repeat(500);
        let calls = [
            call(Body::Plain(b""), 0),
            call(Body::Plain(b"a\nb\n"), 2),
            call(Body::compress(&lines), 500),
        ];
        assert!(matches!(calls[2].body, Body::Zstd(_)));
        let mut body = Vec::new();
        for one in &calls {
            one.write(&mut body);
        }
        assert_eq!(parse(&body).expect("calls"), calls);
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let huge = format!("0 0 1 1 b {}\n", usize::MAX);
        let cases: &[(&[u8], InvalidCalls)] = &[
            (b"", InvalidCalls::Empty),
            (b"nonsense", InvalidCalls::Line(1)),
            (b"0 0 1 1 b 2", InvalidCalls::Line(1)),
            (b"0 0 1 1 b 2 3\nx\n", InvalidCalls::Line(1)),
            (b"0 0 +1 1 b 2\nx\n", InvalidCalls::Line(1)),
            (b"0 0 1 1 q 2\nx\n", InvalidCalls::Line(1)),
            (b"0 0 0 1 b 2\nx\n", InvalidCalls::Line(1)),
            (b"0 0 9007199254740992 1 b 2\nx\n", InvalidCalls::Line(1)),
            (b"0 0 9007199254740991 2 b 4\nx\ny\n", InvalidCalls::Line(1)),
            (huge.as_bytes(), InvalidCalls::Line(1)),
            (b"0 0 1 1 b 3\nx\n", InvalidCalls::Short(1)),
            (b"0 0 1 1 b 600000\nx\n", InvalidCalls::TooLong(1, 600_000)),
            (b"0 0 1 2 b 2\nx\n", InvalidCalls::Count(1, 2, 1)),
            (b"0 0 1 1 b 3\nx\ny", InvalidCalls::Count(1, 1, 1)),
            (b"0 0 1 0 b 0\n0 0 1 1 b 0\n", InvalidCalls::Count(2, 1, 0)),
        ];
        for (body, error) in cases {
            let text = String::from_utf8_lossy(body);
            assert_eq!(parse(body), Err(error.clone()), "{text:?}");
        }
        let damaged = parse(b"0 0 1 1 z 2\nx\n").expect_err("no zstd");
        assert!(matches!(damaged, InvalidCalls::Body(1, _)), "{damaged}");
        let many = b"0 0 1 0 b 0\n".repeat(MAX_CALLS + 1);
        assert_eq!(parse(&many), Err(InvalidCalls::TooMany));
    }
}
