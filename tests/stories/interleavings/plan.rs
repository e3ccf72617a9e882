//! The plans of the property test: what may happen to a run, in any order.
//!
//! A plan contains no times except the waits of its steps. So the same plan is the same test, as
//! far as processes and the network allow. Steps that do not apply (killing a persister that is not
//! running) do nothing, so that every part of a plan is a valid plan.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;

/// Producers of the run, one per variation.
pub(crate) const PRODUCER_COUNT: usize = 2;

/// Longest plan.
const MAX_STEPS: usize = 14;

/// A line without its newline; messages show only its beginning.
#[derive(Clone)]
pub(crate) struct InputLine(pub(crate) Vec<u8>);

impl fmt::Debug for InputLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0[..self.0.len().min(16)].escape_ascii();
        write!(f, "\"{shown}\" of {}", self.0.len())
    }
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A producer prints these lines.
    Say {
        producer: usize,
        lines: Vec<InputLine>,
    },
    /// Waits until all printed lines are stored in Postgres.
    Store,
    /// The replies to the next appends are lost.
    LoseAnswers(usize),
    /// The producers' connections to Redis break.
    Cut,
    /// Redis becomes unreachable for producers.
    Refuse,
    /// Redis becomes reachable again.
    Forward,
    /// Redis loses all data.
    Flush,
    /// The persister is killed.
    KillPersister,
    /// The persister is started again.
    StartPersister,
    /// A producer is killed, and another process continues for it.
    Crash { producer: usize, end: End },
}

/// How a producer process ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Immediately, whatever is unwritten.
    Abrupt,
    /// When all printed lines are in the spool, or stored.
    Spooled,
    /// It is stopped, not killed; when its successor works it resumes and gets more lines.
    Zombie,
    /// It keeps running and gets more lines while its successor takes over.
    Rival,
}

fn producer() -> impl Strategy<Value = usize> {
    0..PRODUCER_COUNT
}

/// Lines without the byte that marks the start of a process: text, colours, carriage returns,
/// invalid UTF-8.
fn line() -> impl Strategy<Value = InputLine> {
    let bytes = prop_oneof![
        4 => "[ -~äß€😀]{0,60}".prop_map(String::into_bytes),
        1 => "\u{1b}\\[3[0-7]m[a-z]{1,8}\u{1b}\\[0m\r".prop_map(String::into_bytes),
        1 => vec(prop_oneof![2_u8..10, 11_u8..=255], 0..40),
        1 => (500..3000_usize).prop_map(|length| vec![b'x'; length]),
    ];
    bytes.prop_map(InputLine)
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
    vec(step(), 1..=MAX_STEPS)
}
