//! Bounds what a run publishes of its output: the head as it comes, then only the newest, at the end.
//!
//! A command that prints without end must fill neither Redis nor Postgres, and both its first and its
//! last lines are what a reader wants. The limit is on raw bytes, over all streams together; the tail
//! has an eighth of it, and at most [`MAX_TAIL_BYTES`].
//!
//! Data: the events of the tail as they will be written, oldest first: [`MAX_TAIL_EVENTS`], and
//! [`MAX_WRITTEN_BYTES`], which only text full of control characters comes to before it is at the
//! tail's limit. So it takes at most 30 MiB, whatever the command prints, and none before the head is
//! spent. It is only memory: if `runcast` is killed, the tail is lost with it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runcast_common::protocol::event::{Kind, Text};
use serde_json::value::{RawValue, to_raw_value};

use super::outlet::Dropped;

/// Most bytes of the tail.
const MAX_TAIL_BYTES: u64 = 8 * 1024 * 1024;

/// Most events of the tail: lines of a few bytes cost more than their text.
const MAX_TAIL_EVENTS: usize = 64 * 1024;

/// Most bytes of the tail's events as they will be written.
const MAX_WRITTEN_BYTES: u64 = 24 * 1024 * 1024;

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is published now.
    Now,
    /// It is kept, or not; this one is the first, so the reader must be told that so many bytes of head
    /// are published and so many of the tail will be.
    First { head: u64, tail: u64 },
    /// It is kept, or not.
    Later,
}

/// An event of the tail.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) kind: Kind,
    pub(crate) payload: Box<RawValue>,
    /// Of its text.
    pub(crate) bytes: usize,
}

/// The limit, and what is kept for the end.
#[derive(Debug)]
pub(crate) struct Cap {
    /// None if everything is published.
    limit: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: u64,
    is_spent: bool,
    tail: VecDeque<Kept>,
    tail_bytes: u64,
    /// Bytes of the events as they will be written.
    written: u64,
    left_out: Dropped,
}

impl Cap {
    /// A limit in bytes; 0 for none.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: (limit > 0).then_some(limit),
            state: Mutex::default(),
        }
    }

    fn tail(limit: u64) -> u64 {
        (limit / 8).min(MAX_TAIL_BYTES)
    }

    /// A panic leaves at worst a count that is off by one event.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an event with so many bytes of text.
    pub(crate) fn admit(&self, kind: Kind, payload: &Text<'_>, bytes: usize) -> Admitted {
        let Some(limit) = self.limit else {
            return Admitted::Now;
        };
        let tail = Self::tail(limit);
        let mut state = self.lock();
        if !state.is_spent && state.head + bytes as u64 <= limit - tail {
            state.head += bytes as u64;
            return Admitted::Now;
        }
        let is_first = !std::mem::replace(&mut state.is_spent, true);
        match to_raw_value(payload) {
            Ok(payload) => state.keep(kind, payload, bytes),
            Err(error) => {
                tracing::warn!(%error, "a piece of output cannot be kept");
                state.left_out.add(one(bytes));
            }
        }
        while state.tail_bytes > tail
            || state.written > MAX_WRITTEN_BYTES
            || state.tail.len() > MAX_TAIL_EVENTS
        {
            state.leave_out_oldest();
        }
        match is_first {
            true => Admitted::First {
                head: state.head,
                tail,
            },
            false => Admitted::Later,
        }
    }

    /// Gives what was left out and what is kept, once.
    pub(crate) fn finish(&self) -> (Dropped, VecDeque<Kept>) {
        let mut state = self.lock();
        let tail = std::mem::take(&mut state.tail);
        (std::mem::take(&mut state.left_out), tail)
    }
}

impl State {
    fn keep(&mut self, kind: Kind, payload: Box<RawValue>, bytes: usize) {
        self.tail_bytes += bytes as u64;
        self.written += payload.get().len() as u64;
        self.tail.push_back(Kept {
            kind,
            payload,
            bytes,
        });
    }

    fn leave_out_oldest(&mut self) {
        let Some(oldest) = self.tail.pop_front() else {
            return;
        };
        self.tail_bytes -= oldest.bytes as u64;
        self.written -= oldest.payload.get().len() as u64;
        self.left_out.add(one(oldest.bytes));
    }
}

const fn one(bytes: usize) -> Dropped {
    Dropped {
        events: 1,
        bytes: bytes as u64,
    }
}

/// Bytes in words: `896 MiB`.
pub(crate) fn in_words(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(cap: &Cap, text: &str) -> Admitted {
        let payload = Text::from_chunk(Some("stdout"), text.as_bytes());
        cap.admit(Kind::Output, &payload, text.len())
    }

    fn kept(cap: &Cap) -> (Dropped, Vec<String>) {
        let (left_out, tail) = cap.finish();
        let text = |kept: &Kept| {
            let payload: serde_json::Value =
                serde_json::from_str(kept.payload.get()).expect("JSON");
            payload["text"].as_str().expect("text").to_owned()
        };
        (left_out, tail.iter().map(text).collect())
    }

    #[test]
    fn the_head_is_published_and_the_newest_is_kept() {
        let line = "x".repeat(99) + "\n";
        let cap = Cap::new(8000);
        for _ in 0..70 {
            assert_eq!(admit(&cap, &line), Admitted::Now);
        }
        assert_eq!(
            admit(&cap, "last\n"),
            Admitted::First {
                head: 7000,
                tail: 1000
            }
        );
        for index in 0..20 {
            assert_eq!(admit(&cap, &format!("{index}{line}")), Admitted::Later);
        }
        // Room in the head does not come back for a short line.
        assert_eq!(admit(&cap, "end\n"), Admitted::Later);
        let (left_out, tail) = kept(&cap);
        assert_eq!((left_out.events, tail.len()), (12, 10));
        assert_eq!(tail.last().map(String::as_str), Some("end\n"));
        assert!(tail[0].starts_with("11x"));
        assert_eq!(kept(&cap), (Dropped::default(), Vec::new()));
    }

    #[test]
    fn what_fits_into_the_tail_is_not_missing() {
        let cap = Cap::new(800);
        admit(&cap, &"x".repeat(700));
        admit(&cap, "rest");
        assert_eq!(kept(&cap), (Dropped::default(), vec!["rest".to_owned()]));
        let none = Cap::new(0);
        assert_eq!(admit(&none, &"x".repeat(100_000)), Admitted::Now);
    }

    #[test]
    fn many_short_lines_are_bounded_by_what_they_cost() {
        let cap = Cap::new(1 << 40);
        cap.lock().is_spent = true;
        for _ in 0..100_000 {
            admit(&cap, "\n");
        }
        let state = cap.lock();
        assert_eq!(state.tail.len(), MAX_TAIL_EVENTS);
        assert!(state.written <= MAX_WRITTEN_BYTES);
    }

    #[test]
    fn sizes_are_said_as_they_are_given() {
        let said = [1 << 30, 896 << 20, 1536, 1000, (1 << 30) - 1].map(in_words);
        assert_eq!(
            said,
            ["1 GiB", "896 MiB", "1.5 KiB", "1000 bytes", "1023.9 MiB"]
        );
    }
}
