//! What may happen to a run, in any order: the plans that the property is tried with.
//!
//! A plan says nothing of time but what each step waits for; so the same plan is the same story, as far
//! as processes and the network allow. Steps that make no sense where they stand (a persister that is
//! killed while it does not run) do nothing, so that every part of a plan is a plan.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;

/// Producers of the run, one for each variation.
pub(crate) const PRODUCERS: usize = 2;

/// Most steps of a plan.
const STEPS: usize = 14;

/// A line without its end, which a message shows the beginning of.
#[derive(Clone)]
pub(crate) struct Line(pub(crate) Vec<u8>);

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0[..self.0.len().min(16)].escape_ascii();
        write!(f, "\"{shown}\" of {}", self.0.len())
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A producer is given these lines.
    Say { producer: usize, lines: Vec<Line> },
    /// Everything that was said is waited for, in Postgres.
    Store,
    /// The next answers of Redis to an append do not arrive.
    LoseAnswers(usize),
    /// Connections of producers to Redis break.
    Cut,
    /// Producers cannot reach Redis from now on.
    Refuse,
    /// They can again.
    Forward,
    /// Redis loses everything.
    Flush,
    /// The persister is killed.
    KillPersister,
    /// And started again.
    StartPersister,
    /// A producer is killed, and another process goes on for it.
    Crash { producer: usize, end: End },
}

/// How a producer ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// At once, whatever it has not written yet.
    Abrupt,
    /// When all that was said is in the spool, or stored.
    Spooled,
    /// It is stopped and not killed; when its successor is at work it goes on, and hears more.
    Zombie,
    /// It goes on, and is told more while its successor takes over.
    Rival,
}

fn producer() -> impl Strategy<Value = usize> {
    0..PRODUCERS
}

/// Lines without the byte by which the harness knows where a process began: text, colours, carriage
/// returns, bytes that are no text.
fn line() -> impl Strategy<Value = Line> {
    let bytes = prop_oneof![
        4 => "[ -~äß€😀]{0,60}".prop_map(String::into_bytes),
        1 => "\u{1b}\\[3[0-7]m[a-z]{1,8}\u{1b}\\[0m\r".prop_map(String::into_bytes),
        1 => vec(prop_oneof![2_u8..10, 11_u8..=255], 0..40),
        1 => (500..3000_usize).prop_map(|length| vec![b'x'; length]),
    ];
    bytes.prop_map(Line)
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Abrupt),
        Just(End::Spooled),
        Just(End::Zombie),
        Just(End::Rival)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (producer(), vec(line(), 1..30)).prop_map(|(producer, lines)| Step::Say { producer, lines }),
        2 => Just(Step::Store),
        2 => (1..4_usize).prop_map(Step::LoseAnswers),
        1 => Just(Step::Cut),
        1 => Just(Step::Refuse),
        2 => Just(Step::Forward),
        2 => Just(Step::Flush),
        2 => Just(Step::KillPersister),
        2 => Just(Step::StartPersister),
        3 => (producer(), end()).prop_map(|(producer, end)| Step::Crash { producer, end }),
    ]
}

/// Any plan.
pub(crate) fn plan() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..=STEPS)
}
