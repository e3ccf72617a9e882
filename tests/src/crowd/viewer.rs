//! One viewer of a crowd: the parsed state of its stream.

use std::time::{Duration, Instant};

use memchr::memmem;

use super::response_parser::{MAX_CARRY_BYTES, ResponseError, ResponseParser};
use crate::stamp;

/// The pause before a reconnect, unless the server sets another.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// Longest pause that a server may set here; otherwise a crowd might never be complete again.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The content of one read.
#[derive(Debug, Default)]
pub(crate) struct ReadSummary {
    /// The response has begun.
    pub(crate) opened: bool,
    /// Messages.
    pub(crate) messages: u64,
    /// Positions where messages were missing, doubled or out of order.
    pub(crate) sequence_errors: u64,
    /// `gap` frames.
    pub(crate) gaps: u64,
    /// `closing` frames.
    pub(crate) closing: u64,
    /// The server has ended the response.
    pub(crate) over: bool,
}

#[derive(Debug)]
pub(crate) struct Viewer {
    parser: ResponseParser,
    /// Bytes that are not complete yet: of the head, or of a frame.
    carry: Vec<u8>,
    /// The number that the next message must have; 0 for any.
    pub(crate) next: u64,
    /// The id of the last complete frame.
    pub(crate) cursor: Option<String>,
    retry: Duration,
    /// When it started to connect.
    pub(crate) connect_started: Instant,
}

impl Viewer {
    pub(crate) fn new(next: u64) -> Self {
        Self {
            parser: ResponseParser::Head,
            carry: Vec::new(),
            next,
            cursor: None,
            retry: DEFAULT_RETRY,
            connect_started: Instant::now(),
        }
    }

    /// Discards the state of a closed connection; returns the pause before the next.
    pub(crate) fn reset(&mut self) -> Duration {
        self.parser = ResponseParser::Head;
        self.carry = Vec::new();
        self.retry
    }

    /// Starts a new connection.
    pub(crate) fn begin_connection(&mut self) {
        self.connect_started = Instant::now();
    }

    /// Processes what was read into `buffer[MAX_CARRY_BYTES..to]`. The space before it is for the
    /// bytes carried from the previous read. `each` receives the due time of all messages, if
    /// given.
    pub(crate) fn process(
        &mut self,
        buffer: &mut [u8],
        to: usize,
        resumes: bool,
        each: Option<&mut dyn FnMut(u64)>,
    ) -> Result<ReadSummary, ResponseError> {
        let mut summary = ReadSummary::default();
        let mut begin = MAX_CARRY_BYTES - self.carry.len();
        buffer[begin..MAX_CARRY_BYTES].copy_from_slice(&self.carry);
        let mut read = MAX_CARRY_BYTES;
        if self.parser == ResponseParser::Head {
            let Some(body) = self.parser.head(&buffer[begin..to])? else {
                self.carry_over(&buffer[begin..to])?;
                return Ok(summary);
            };
            summary.opened = true;
            begin += body;
            read = begin;
        }
        let end = self.parser.body(buffer, read, to)?;
        summary.over = self.parser == ResponseParser::Over;
        let bytes = &buffer[begin..end];
        if resumes {
            // Only a complete frame may move the cursor.
            let whole = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
            self.read_notices(&bytes[..whole], &mut summary);
            self.check_messages(&bytes[..whole], each, &mut summary);
            self.carry_over(&bytes[whole..])?;
        } else {
            // Some servers put all that is pending into one frame of any length.
            self.check_messages(bytes, each, &mut summary);
            self.carry_over(&bytes[stamp::incomplete_tail(bytes)..])?;
        }
        Ok(summary)
    }

    fn carry_over(&mut self, rest: &[u8]) -> Result<(), ResponseError> {
        if rest.len() >= MAX_CARRY_BYTES {
            return Err(ResponseError::Malformed);
        }
        self.carry.clear();
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    fn check_messages(
        &mut self,
        frames: &[u8],
        each: Option<&mut dyn FnMut(u64)>,
        summary: &mut ReadSummary,
    ) {
        if let Some(each) = each {
            for mark in stamp::stamps(frames) {
                summary.messages += 1;
                summary.sequence_errors += u64::from(self.next != 0 && self.next != mark.number);
                self.next = mark.number + 1;
                each(mark.due_ns);
            }
            return;
        }
        // The first and the last number are enough to see that no message is missing.
        let mut positions = stamp::positions(frames);
        let Some(first) = positions.next() else {
            return;
        };
        let (last, more) = positions.fold((first, 0), |(_, more), at| (at, more + 1));
        summary.messages = more + 1;
        let number = |at| stamp::stamp_at(frames, at).map_or(0, |mark| mark.number);
        let (first, last) = (number(first), number(last));
        let whole = first + more == last && (self.next == 0 || self.next == first);
        summary.sequence_errors += u64::from(!whole);
        self.next = last + 1;
    }

    /// Reads the cursor and what the server says about the connection.
    fn read_notices(&mut self, frames: &[u8], summary: &mut ReadSummary) {
        if let Some(at) = memmem::rfind(frames, b"\nid: ") {
            let id = frames[at + 5..].split(|&byte| byte == b'\n').next();
            let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
            self.cursor = id;
        }
        if let Some(at) = memmem::rfind(frames, b"retry: ") {
            let number = frames[at + 7..].split(|&byte| byte == b'\n').next();
            let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            self.retry = number
                .map_or(DEFAULT_RETRY, Duration::from_millis)
                .min(MAX_RETRY);
        }
        summary.gaps += memmem::find_iter(frames, b"event: gap\n").count() as u64;
        summary.closing += memmem::find_iter(frames, b"event: closing\n").count() as u64;
    }
}
