//! [`Redactor`]: the secrets of a process, and the automaton that finds them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use runcast_common::protocol::event::StatusChange;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::Instant;

use crate::automaton::Automaton;
use crate::encodings;
use crate::secret_value::{self, InvalidSecretValue};

/// The secrets of a process. Cloning is cheap, and all clones share the same secrets.
///
/// Its `Debug` output contains no secret. The values are wiped from memory when it is dropped; the
/// automaton and the environment, where most values come from, are not.
#[derive(Clone)]
pub struct Redactor {
    pub(crate) shared: Arc<Shared>,
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

    /// Adds values, and returns the indexes of the rejected ones with the reasons. The automaton is
    /// built once for all of them, which takes milliseconds.
    pub fn add_all<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<(usize, InvalidSecretValue)> {
        let mut secrets = self
            .shared
            .values
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count_before = secrets.len();
        let (mut added, mut rejected) = (Vec::new(), Vec::new());
        let mut total: usize = secrets
            .iter()
            .map(|value| value.expose_secret().len())
            .sum();
        for (index, value) in values.into_iter().enumerate() {
            let value = secret_value::trimmed(value);
            if secrets.iter().any(|one| one.expose_secret() == value) {
                continue;
            }
            match secret_value::check(value) {
                Ok(()) if total + value.len() <= secret_value::MAX_TOTAL_BYTES => {
                    total += value.len();
                    added.push(index);
                    secrets.push(SecretSlice::from(value.to_vec()));
                }
                Ok(()) => rejected.push((index, InvalidSecretValue::TotalTooLong)),
                Err(reason) => rejected.push((index, reason)),
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
                rejected.extend(added.into_iter().map(|index| (index, reason)));
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
