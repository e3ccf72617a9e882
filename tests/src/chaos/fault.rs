//! Which requests, or answers, a proxy treats badly: those that hold a pattern, a number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memmem;

/// What happens to such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out, and its answer does not arrive.
    DropReply,
    /// It is carried out, and its answer waits.
    HoldReply,
    /// It does not arrive.
    BlockRequest,
    /// It breaks off there.
    CutAfter,
}

/// The rule in force, if there is one.
#[derive(Debug, Default)]
pub(crate) struct FaultRules(Mutex<FaultRule>);

#[derive(Debug, Default)]
struct FaultRule {
    pattern: Vec<u8>,
    fault: Option<Fault>,
    left: usize,
    hits: usize,
}

impl FaultRules {
    /// From now on, counting from nothing, the next `times` requests that hold `pattern` meet this fault.
    pub(crate) fn set(&self, fault: Fault, times: usize, pattern: &[u8]) {
        let mut rule = self.lock();
        (rule.fault, rule.left, rule.hits) = (Some(fault), times, 0);
        rule.pattern = pattern.to_vec();
    }

    /// The fault for a request, if one is due.
    pub(crate) fn next_fault(&self, request: &[u8]) -> Option<Fault> {
        self.apply(request).map(|(fault, _)| fault)
    }

    /// Where the pattern ends, if a fault is due.
    pub(crate) fn end_of_match(&self, said: &[u8]) -> Option<usize> {
        self.apply(said).map(|(_, end)| end)
    }

    fn apply(&self, bytes: &[u8]) -> Option<(Fault, usize)> {
        let mut rule = self.lock();
        let fault = rule.fault.filter(|_| rule.left > 0)?;
        let at = memmem::find(bytes, &rule.pattern)?;
        rule.left -= 1;
        rule.hits += 1;
        Some((fault, at + rule.pattern.len()))
    }

    /// How much of a request has to be kept to find a pattern that lies across two reads.
    pub(crate) fn overlap_bytes(&self) -> usize {
        self.lock().pattern.len().saturating_sub(1)
    }

    /// How many requests have met a fault.
    pub(crate) fn hits(&self) -> usize {
        self.lock().hits
    }

    fn lock(&self) -> MutexGuard<'_, FaultRule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
