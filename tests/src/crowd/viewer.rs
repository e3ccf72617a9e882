//! One viewer of a crowd: what it has understood of its stream so far.

use std::time::{Duration, Instant};

use memchr::memmem;

use super::wire::{Broken, LONGEST, Wire};
use crate::mark;

/// What a client waits before it comes back, unless it was told otherwise.
const RETRY: Duration = Duration::from_secs(1);

/// Longest wait that a server may ask for here: a crowd whose viewers stay away would never be whole again.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What a read was about.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The answer has begun.
    pub(crate) opened: bool,
    /// Messages.
    pub(crate) messages: u64,
    /// Messages that were missing, doubled or out of order: the pieces between them.
    pub(crate) seams: u64,
    /// `gap` frames.
    pub(crate) gaps: u64,
    /// `closing` frames.
    pub(crate) closing: u64,
    /// The server has ended the answer.
    pub(crate) over: bool,
}

#[derive(Debug)]
pub(crate) struct Viewer {
    wire: Wire,
    /// What was read and is not whole yet: of the head, or of a frame.
    carry: Vec<u8>,
    /// Number of the message that must come next; 0 while any may.
    pub(crate) next: u64,
    /// The id of the last frame.
    pub(crate) cursor: Option<String>,
    retry: Duration,
    /// When it began to connect.
    pub(crate) since: Instant,
}

impl Viewer {
    pub(crate) fn new(next: u64) -> Self {
        Self {
            wire: Wire::Head,
            carry: Vec::new(),
            next,
            cursor: None,
            retry: RETRY,
            since: Instant::now(),
        }
    }

    /// Forgets what was left of a connection that is gone; says how long to stay away.
    pub(crate) fn leave(&mut self) -> Duration {
        self.wire = Wire::Head;
        self.carry = Vec::new();
        self.retry
    }

    /// Begins with a new connection.
    pub(crate) fn connect(&mut self) {
        self.since = Instant::now();
    }

    /// Takes in what was read into `buffer[LONGEST..to]`; in front of it there is room for what was carried.
    /// `each` gets the marks, if it wants them all.
    pub(crate) fn take(
        &mut self,
        buffer: &mut [u8],
        to: usize,
        resumes: bool,
        each: Option<&mut dyn FnMut(u64)>,
    ) -> Result<Taken, Broken> {
        let mut taken = Taken::default();
        let mut begin = LONGEST - self.carry.len();
        buffer[begin..LONGEST].copy_from_slice(&self.carry);
        let mut read = LONGEST;
        if self.wire == Wire::Head {
            let Some(body) = self.wire.head(&buffer[begin..to])? else {
                self.keep(&buffer[begin..to])?;
                return Ok(taken);
            };
            taken.opened = true;
            begin += body;
            read = begin;
        }
        let end = self.wire.body(buffer, read, to)?;
        taken.over = self.wire == Wire::Over;
        let bytes = &buffer[begin..end];
        if resumes {
            // A cursor may only move with the whole frame.
            let whole = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
            self.notices(&bytes[..whole], &mut taken);
            self.messages(&bytes[..whole], each, &mut taken);
            self.keep(&bytes[whole..])?;
        } else {
            // Some servers put all that is behind into one frame, of any length.
            self.messages(bytes, each, &mut taken);
            self.keep(&bytes[mark::rest(bytes)..])?;
        }
        Ok(taken)
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), Broken> {
        if rest.len() >= LONGEST {
            return Err(Broken::Malformed);
        }
        self.carry.clear();
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    fn messages(&mut self, frames: &[u8], each: Option<&mut dyn FnMut(u64)>, taken: &mut Taken) {
        if let Some(each) = each {
            for mark in mark::marks(frames) {
                taken.messages += 1;
                taken.seams += u64::from(self.next != 0 && self.next != mark.number);
                self.next = mark.number + 1;
                each(mark.due_ns);
            }
            return;
        }
        // Reading only the first and the last number is enough to see that none of them is missing.
        let mut positions = mark::positions(frames);
        let Some(first) = positions.next() else {
            return;
        };
        let (last, more) = positions.fold((first, 0), |(_, more), at| (at, more + 1));
        taken.messages = more + 1;
        let number = |at| mark::mark_at(frames, at).map_or(0, |mark| mark.number);
        let (first, last) = (number(first), number(last));
        let whole = first + more == last && (self.next == 0 || self.next == first);
        taken.seams += u64::from(!whole);
        self.next = last + 1;
    }

    /// What the server says about the connection, and where it stands.
    fn notices(&mut self, frames: &[u8], taken: &mut Taken) {
        if let Some(at) = memmem::rfind(frames, b"\nid: ") {
            let id = frames[at + 5..].split(|&byte| byte == b'\n').next();
            let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
            self.cursor = id;
        }
        if let Some(at) = memmem::rfind(frames, b"retry: ") {
            let number = frames[at + 7..].split(|&byte| byte == b'\n').next();
            let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            self.retry = number
                .map_or(RETRY, Duration::from_millis)
                .min(LONGEST_RETRY);
        }
        taken.gaps += memmem::find_iter(frames, b"event: gap\n").count() as u64;
        taken.closing += memmem::find_iter(frames, b"event: closing\n").count() as u64;
    }
}
