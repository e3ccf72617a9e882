//! Selects the requests or replies that a proxy mistreats: those that contain a pattern, a given
//! number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memmem;

/// What happens to a matching request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server executes the request, but the client never gets the reply.
    DropReply,
    /// The server executes the request; its reply is held back.
    HoldReply,
    /// The server never receives the request.
    BlockRequest,
    /// The connection breaks right after the pattern.
    CutAfter,
}

/// The current rule, if any.
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
    /// Applies the fault to the next `times` requests that contain `pattern`, and resets the count
    /// of hits.
    pub(crate) fn set(&self, fault: Fault, times: usize, pattern: &[u8]) {
        let mut rule = self.lock();
        (rule.fault, rule.left, rule.hits) = (Some(fault), times, 0);
        rule.pattern = pattern.to_vec();
    }

    /// The fault for these bytes, if the rule matches.
    pub(crate) fn next_fault(&self, request: &[u8]) -> Option<Fault> {
        self.apply(request).map(|(fault, _)| fault)
    }

    /// Where the pattern ends, if the rule matches.
    pub(crate) fn end_of_match(&self, reply: &[u8]) -> Option<usize> {
        self.apply(reply).map(|(_, end)| end)
    }

    fn apply(&self, bytes: &[u8]) -> Option<(Fault, usize)> {
        let mut rule = self.lock();
        let fault = rule.fault.filter(|_| rule.left > 0)?;
        let at = memmem::find(bytes, &rule.pattern)?;
        rule.left -= 1;
        rule.hits += 1;
        Some((fault, at + rule.pattern.len()))
    }

    /// How many bytes to keep between two reads to find a pattern that spans both.
    pub(crate) fn overlap_bytes(&self) -> usize {
        self.lock().pattern.len().saturating_sub(1)
    }

    /// How many times the rule has matched.
    pub(crate) fn hits(&self) -> usize {
        self.lock().hits
    }

    fn lock(&self) -> MutexGuard<'_, FaultRule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
