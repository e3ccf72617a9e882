//! Which requests, or answers, a proxy treats badly: those that hold a pattern, a number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memmem;

/// What happens to such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out, and its answer does not arrive.
    LoseAnswer,
    /// It is carried out, and its answer waits.
    HoldAnswer,
    /// It does not arrive.
    Hold,
    /// It breaks off there.
    CutBehind,
}

/// The rule in force, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<Rule>);

#[derive(Debug, Default)]
struct Rule {
    pattern: Vec<u8>,
    fault: Option<Fault>,
    left: usize,
    struck: usize,
}

impl Rules {
    /// From now on, counting from nothing, the next `times` requests that hold `pattern` meet this fault.
    pub(crate) fn set(&self, fault: Fault, times: usize, pattern: &[u8]) {
        let mut rule = self.lock();
        (rule.fault, rule.left, rule.struck) = (Some(fault), times, 0);
        rule.pattern = pattern.to_vec();
    }

    /// The fault for a request, if one is due.
    pub(crate) fn judge(&self, request: &[u8]) -> Option<Fault> {
        self.strike(request).map(|(fault, _)| fault)
    }

    /// Where the pattern ends, if a fault is due.
    pub(crate) fn end_of_match(&self, said: &[u8]) -> Option<usize> {
        self.strike(said).map(|(_, end)| end)
    }

    fn strike(&self, bytes: &[u8]) -> Option<(Fault, usize)> {
        let mut rule = self.lock();
        let fault = rule.fault.filter(|_| rule.left > 0)?;
        let at = memmem::find(bytes, &rule.pattern)?;
        rule.left -= 1;
        rule.struck += 1;
        Some((fault, at + rule.pattern.len()))
    }

    /// How much of a request has to be kept to find a pattern that lies across two reads.
    pub(crate) fn memory(&self) -> usize {
        self.lock().pattern.len().saturating_sub(1)
    }

    /// How many requests have met a fault.
    pub(crate) fn struck(&self) -> usize {
        self.lock().struck
    }

    fn lock(&self) -> MutexGuard<'_, Rule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
