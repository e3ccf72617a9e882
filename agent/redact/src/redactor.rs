//! [`Redactor`]: the secrets of a process, and the automaton that finds them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use runcast_common::protocol::event::StatusChange;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::Instant;

use crate::automaton::Automaton;
use crate::encodings;
use crate::secret_parts::{self, SecretPart};
use crate::secret_value::{self, Evidence, InvalidSecretValue};

/// The secrets of a process. Cloning is cheap, and all clones share the same secrets.
///
/// Its `Debug` output contains no secret. The values are wiped from memory when it is dropped; the
/// automaton and the environment, where most values come from, are not.
#[derive(Clone)]
pub struct Redactor {
    pub(crate) shared: Arc<Shared>,
}

/// A value that may become a secret.
pub(super) struct Candidate {
    /// Which of the given values it comes from.
    source: usize,
    value: SecretSlice<u8>,
    evidence: Evidence,
    /// Whether it is a part of a given value.
    is_part: bool,
    /// Whether the user should hear if it is rejected.
    is_reported: bool,
}

/// A value that is not redacted.
pub(super) struct Rejection {
    pub(super) source: usize,
    pub(super) is_part: bool,
    pub(super) reason: InvalidSecretValue,
}

impl Candidate {
    /// A value and its parts.
    pub(super) fn of(source: usize, value: &[u8], evidence: Evidence) -> Vec<Self> {
        let whole = Self {
            source,
            value: SecretSlice::from(value.to_vec()),
            evidence,
            is_part: false,
            is_reported: true,
        };
        let parts = secret_parts::parts(value, true).into_iter();
        let parts = parts.map(|part| Self::of_part(source, part));
        [whole].into_iter().chain(parts).collect()
    }

    pub(super) fn of_part(source: usize, part: SecretPart) -> Self {
        Self {
            source,
            value: SecretSlice::from(part.value),
            evidence: part.evidence,
            is_part: true,
            is_reported: part.is_reported,
        }
    }

    const fn rejection(&self, reason: InvalidSecretValue) -> Rejection {
        Rejection {
            source: self.source,
            is_part: self.is_part,
            reason,
        }
    }
}

/// What a redactor and its streams share.
pub(crate) struct Shared {
    token_formats: bool,
    values: Mutex<Vec<SecretSlice<u8>>>,
    automaton: RwLock<Option<Arc<Automaton>>>,
}

impl Shared {
    /// The newest automaton; none if it would have no patterns.
    pub(crate) fn automaton(&self) -> Option<Arc<Automaton>> {
        let automaton = self
            .automaton
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        automaton.clone()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("token_formats", &self.shared.token_formats)
            .field("automaton", &self.shared.automaton())
            .finish_non_exhaustive()
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl Redactor {
    /// A redactor that recognizes common token formats and private keys, and no values yet.
    pub fn new() -> Self {
        Self::with_token_formats(true)
    }

    /// A redactor that changes nothing until a value is added.
    pub fn empty() -> Self {
        Self::with_token_formats(false)
    }

    fn with_token_formats(token_formats: bool) -> Self {
        // Cannot fail: the token formats alone are within all limits.
        let automaton = Automaton::new(BTreeSet::new(), token_formats)
            .ok()
            .flatten();
        let automaton = automaton.map(Arc::new);
        Self {
            shared: Arc::new(Shared {
                token_formats,
                values: Mutex::new(Vec::new()),
                automaton: RwLock::new(automaton),
            }),
        }
    }

    /// Adds a value. Each stream redacts it from its next write on.
    pub fn add(&self, value: &[u8]) -> Result<(), InvalidSecretValue> {
        match self.add_all([value]).pop() {
            Some((_index, rejected)) => Err(rejected),
            None => Ok(()),
        }
    }

    /// Adds values, and returns the indexes of the rejected ones with the reasons. The parts of a
    /// structured value are secrets too, see [`super::secret_parts`]. The automaton is built once
    /// for all of them, which takes milliseconds.
    pub fn add_all<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<(usize, InvalidSecretValue)> {
        let mut candidates = Vec::new();
        for (source, value) in values.into_iter().enumerate() {
            candidates.extend(Candidate::of(source, value, Evidence::User));
        }
        let rejected = self.add_candidates(&candidates).into_iter();
        let rejected = rejected.filter(|rejection| !rejection.is_part);
        rejected
            .map(|rejection| (rejection.source, rejection.reason))
            .collect()
    }

    /// Adds values, and returns the rejected ones that are to be reported.
    pub(super) fn add_candidates(&self, candidates: &[Candidate]) -> Vec<Rejection> {
        let mut secrets = self
            .shared
            .values
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count_before = secrets.len();
        let mut known: HashSet<Vec<u8>> = secrets
            .iter()
            .map(|value| value.expose_secret().to_vec())
            .collect();
        let mut total: usize = known.iter().map(Vec::len).sum();
        let (mut added, mut rejected) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let value = secret_value::trimmed(candidate.value.expose_secret());
            if known.contains(value) {
                continue;
            }
            let checked = match secret_value::check(value, candidate.evidence) {
                Ok(()) if total + value.len() > secret_value::MAX_TOTAL_BYTES => {
                    Err(InvalidSecretValue::TotalTooLong)
                }
                checked => checked,
            };
            match checked {
                Ok(()) => {
                    total += value.len();
                    added.push(candidate);
                    known.insert(value.to_vec());
                    secrets.push(SecretSlice::from(value.to_vec()));
                }
                Err(reason) if candidate.is_reported => rejected.push(candidate.rejection(reason)),
                Err(_) => {}
            }
        }
        if added.is_empty() {
            return rejected;
        }
        let forms = secrets
            .iter()
            .map(|value| encodings::forms(value.expose_secret()));
        match Automaton::new(forms.flatten().collect(), self.shared.token_formats) {
            Ok(automaton) => {
                let shared = self.shared.automaton.write();
                *shared.unwrap_or_else(PoisonError::into_inner) = automaton.map(Arc::new);
            }
            // The values that were known before stay.
            Err(reason) => {
                secrets.truncate(count_before);
                rejected.extend(
                    added
                        .into_iter()
                        .map(|candidate| candidate.rejection(reason)),
                );
            }
        }
        rejected
    }

    /// Redacts a complete text.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            redacted if redacted == text.as_bytes() => Cow::Borrowed(text),
            // Matches start and end between characters, unless a value is not UTF-8 itself.
            redacted => Cow::Owned(String::from_utf8_lossy(&redacted).into_owned()),
        }
    }

    /// Redacts a complete byte string.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut stream = self.stream();
        stream.push(bytes, Instant::now(), &mut out);
        stream.finish_whole(&mut out);
        out
    }

    /// Redacts the command line and the message of a status change.
    pub fn status(&self, mut change: StatusChange) -> StatusChange {
        for text in change.command.iter_mut().chain(&mut change.message) {
            if let Cow::Owned(redacted) = self.text(text) {
                *text = redacted;
            }
        }
        change
    }
}
