//! Bounds how much output a run publishes: the head as it arrives, then only the newest output, at
//! the end.
//!
//! A command that prints endlessly must fill neither Redis nor Postgres, and readers want both its
//! first and its last lines. The limit counts raw bytes of all streams together; the tail gets an
//! eighth of it, at most [`MAX_TAIL_BYTES`].
//!
//! Data: the events of the tail as they will be written, oldest first: at most [`MAX_TAIL_EVENTS`]
//! and [`MAX_WRITTEN_BYTES`], which only text full of control characters reaches before the tail's
//! limit. So the tail takes at most 30 MiB, whatever the command prints, and nothing before the
//! head is used up. It is in memory only: if `runcast` is killed, the tail is lost.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runcast_common::protocol::event::{Kind, Text};
use serde_json::value::{RawValue, to_raw_value};

use super::event_sink::DroppedEvents;

/// Limit for the text of the tail.
const MAX_TAIL_BYTES: u64 = 8 * 1024 * 1024;

/// Limit for the events of the tail: short lines cost more than their text.
const MAX_TAIL_EVENTS: usize = 64 * 1024;

/// Limit for the tail's events as they will be written.
const MAX_WRITTEN_BYTES: u64 = 24 * 1024 * 1024;

/// What happens to an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Publish it now.
    Now,
    /// Stored in the tail, or left out. This is the first such event: the reader must learn how
    /// much of the head is published and how much of the tail will be.
    FirstInTail { head: u64, tail: u64 },
    /// Stored in the tail, or left out.
    InTail,
}

/// An event of the tail.
#[derive(Debug)]
pub(crate) struct TailEvent {
    pub(crate) kind: Kind,
    pub(crate) payload: Box<RawValue>,
    /// Bytes of its text.
    pub(crate) bytes: usize,
}

/// The limit and the tail.
#[derive(Debug)]
pub(crate) struct OutputLimit {
    /// None without a limit.
    limit: Option<u64>,
    state: Mutex<LimitState>,
}

#[derive(Debug, Default)]
struct LimitState {
    head: u64,
    is_spent: bool,
    tail: VecDeque<TailEvent>,
    tail_bytes: u64,
    /// Bytes of the tail's events as they will be written.
    written: u64,
    left_out: DroppedEvents,
}

impl OutputLimit {
    /// A limit in bytes; 0 for none.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: (limit > 0).then_some(limit),
            state: Mutex::default(),
        }
    }

    fn tail_limit(limit: u64) -> u64 {
        (limit / 8).min(MAX_TAIL_BYTES)
    }

    /// A poisoned lock is fine: a panic leaves at worst a count that is off by one event.
    fn lock(&self) -> MutexGuard<'_, LimitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on an event with so many bytes of text, and stores it if it belongs to the tail.
    pub(crate) fn admit(&self, kind: Kind, payload: &Text<'_>, bytes: usize) -> Admission {
        let Some(limit) = self.limit else {
            return Admission::Now;
        };
        let tail = Self::tail_limit(limit);
        let mut state = self.lock();
        if !state.is_spent && state.head + bytes as u64 <= limit - tail {
            state.head += bytes as u64;
            return Admission::Now;
        }
        let is_first = !std::mem::replace(&mut state.is_spent, true);
        match to_raw_value(payload) {
            Ok(payload) => state.add_to_tail(kind, payload, bytes),
            Err(error) => {
                tracing::warn!(%error, "a piece of output cannot be stored for the end");
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
            true => Admission::FirstInTail {
                head: state.head,
                tail,
            },
            false => Admission::InTail,
        }
    }

    /// Returns what was left out, and the tail, once.
    pub(crate) fn finish(&self) -> (DroppedEvents, VecDeque<TailEvent>) {
        let mut state = self.lock();
        let tail = std::mem::take(&mut state.tail);
        (std::mem::take(&mut state.left_out), tail)
    }
}

impl LimitState {
    fn add_to_tail(&mut self, kind: Kind, payload: Box<RawValue>, bytes: usize) {
        self.tail_bytes += bytes as u64;
        self.written += payload.get().len() as u64;
        self.tail.push_back(TailEvent {
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

const fn one(bytes: usize) -> DroppedEvents {
    DroppedEvents {
        events: 1,
        bytes: bytes as u64,
    }
}

/// Formats bytes: `896 MiB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
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

    fn admit(limit: &OutputLimit, text: &str) -> Admission {
        let payload = Text::from_chunk(Some("stdout"), text.as_bytes());
        limit.admit(Kind::Output, &payload, text.len())
    }

    fn finish(limit: &OutputLimit) -> (DroppedEvents, Vec<String>) {
        let (left_out, tail) = limit.finish();
        let text = |event: &TailEvent| {
            let payload: serde_json::Value =
                serde_json::from_str(event.payload.get()).expect("JSON");
            payload["text"].as_str().expect("text").to_owned()
        };
        (left_out, tail.iter().map(text).collect())
    }

    #[test]
    fn the_head_is_published_and_the_newest_output_is_kept() {
        let line = "x".repeat(99) + "\n";
        let limit = OutputLimit::new(8000);
        for _ in 0..70 {
            assert_eq!(admit(&limit, &line), Admission::Now);
        }
        assert_eq!(
            admit(&limit, "last\n"),
            Admission::FirstInTail {
                head: 7000,
                tail: 1000
            }
        );
        for index in 0..20 {
            assert_eq!(admit(&limit, &format!("{index}{line}")), Admission::InTail);
        }
        // A short line does not go into the head again.
        assert_eq!(admit(&limit, "end\n"), Admission::InTail);
        let (left_out, tail) = finish(&limit);
        assert_eq!((left_out.events, tail.len()), (12, 10));
        assert_eq!(tail.last().map(String::as_str), Some("end\n"));
        assert!(tail[0].starts_with("11x"));
        assert_eq!(finish(&limit), (DroppedEvents::default(), Vec::new()));
    }

    #[test]
    fn output_that_fits_the_tail_is_not_missing() {
        let limit = OutputLimit::new(800);
        admit(&limit, &"x".repeat(700));
        admit(&limit, "rest");
        assert_eq!(
            finish(&limit),
            (DroppedEvents::default(), vec!["rest".to_owned()])
        );
        let none = OutputLimit::new(0);
        assert_eq!(admit(&none, &"x".repeat(100_000)), Admission::Now);
    }

    #[test]
    fn short_lines_are_bounded_by_their_cost() {
        let limit = OutputLimit::new(1 << 40);
        limit.lock().is_spent = true;
        for _ in 0..100_000 {
            admit(&limit, "\n");
        }
        let state = limit.lock();
        assert_eq!(state.tail.len(), MAX_TAIL_EVENTS);
        assert!(state.written <= MAX_WRITTEN_BYTES);
    }

    #[test]
    fn sizes_are_formatted_with_units() {
        let formatted = [1 << 30, 896 << 20, 1536, 1000, (1 << 30) - 1].map(format_bytes);
        assert_eq!(
            formatted,
            ["1 GiB", "896 MiB", "1.5 KiB", "1000 bytes", "1023.9 MiB"]
        );
    }
}
