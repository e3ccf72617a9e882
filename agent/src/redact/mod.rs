//! Redaction at the source: values of secrets do not leave the process in what it publishes.
//!
//! ```
//! use runcast_agent::redact::Redactor;
//!
//! let redactor = Redactor::new();
//! redactor.add(b"correct horse battery").expect("long enough");
//! assert_eq!(redactor.text("it is correct horse battery"), "it is [redacted]");
//! assert_eq!(redactor.text("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"), "[redacted]");
//! ```
//!
//! - `env`, `pattern`: which variables of an environment hold secrets;
//! - `value`: which values are refused, and why;
//! - `forms`: how a value looks in base64, JSON, addresses and shells;
//! - `mask_command`: values that a command names in its own output;
//! - `shapes`: tokens and keys that are known without their value;
//! - `table`: the automaton over all of it;
//! - `stream`, `pending`: a stream in pieces, what is held back, and for how long.
//!
//! A match is replaced by [`MASK`], whatever its length. What is not found: a value that was
//! encoded in another way (compressed, encrypted, in hex, reversed), with anything but line ends put
//! into it, or in parts that are printed apart. Redaction is a net below programs that should not
//! print their secrets, not a reason to let them.

mod env;
mod forms;
mod mask_command;
mod pattern;
mod pending;
mod shapes;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use runcast_common::protocol::event::StatusChange;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::Instant;

pub use self::env::{Ignored, Wanted, from_variables};
pub use self::pattern::{Pattern, UnusablePattern};
pub use self::stream::Stream;
use self::table::Table;
pub use self::value::Refused;

/// What stands in the place of a secret. It is the same for all, so that it tells nothing of them.
pub const MASK: &[u8] = b"[redacted]";

/// Knows the secrets of a process. Cloning is cheap, and all clones know the same.
///
/// Nothing of it prints a secret. The values are wiped from memory with it; the automaton that is
/// made of them is not, and neither is the environment that most of them come from.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<Shared>,
}

/// What a redactor and its streams share.
pub(crate) struct Shared {
    shapes: bool,
    values: Mutex<Vec<SecretSlice<u8>>>,
    table: RwLock<Option<Arc<Table>>>,
}

impl Shared {
    /// The newest table; none if there is nothing to look for.
    fn table(&self) -> Option<Arc<Table>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.clone()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("shapes", &self.shared.shapes)
            .field("table", &self.shared.table())
            .finish_non_exhaustive()
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl Redactor {
    /// Knows the shapes of common tokens and of private keys, and no values yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_shapes(true)
    }

    /// Knows nothing yet, and changes nothing until a value is added.
    #[must_use]
    pub fn empty() -> Self {
        Self::with_shapes(false)
    }

    fn with_shapes(shapes: bool) -> Self {
        // The shapes alone cannot be too many.
        let table = Table::new(BTreeSet::new(), shapes).ok().flatten();
        let table = table.map(Arc::new);
        Self {
            shared: Arc::new(Shared {
                shapes,
                values: Mutex::new(Vec::new()),
                table: RwLock::new(table),
            }),
        }
    }

    /// Redacts one more value, from the next write to each stream on.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be told from ordinary text, or is too long.
    pub fn add(&self, value: &[u8]) -> Result<(), Refused> {
        match self.add_all([value]).pop() {
            Some((_index, refused)) => Err(refused),
            None => Ok(()),
        }
    }

    /// Redacts more values, and gives the indexes of those that were refused, and why. The table is
    /// made once for all of them, which takes milliseconds.
    pub fn add_all<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> Vec<(usize, Refused)> {
        let mut known = self
            .shared
            .values
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known_before = known.len();
        let (mut added, mut refused) = (Vec::new(), Vec::new());
        let mut total: usize = known.iter().map(|value| value.expose_secret().len()).sum();
        for (index, value) in values.into_iter().enumerate() {
            let value = value::core(value);
            if known.iter().any(|one| one.expose_secret() == value) {
                continue;
            }
            match value::check(value) {
                Ok(()) if total + value.len() <= value::MAX_TOTAL_BYTES => {
                    total += value.len();
                    added.push(index);
                    known.push(SecretSlice::from(value.to_vec()));
                }
                Ok(()) => refused.push((index, Refused::TooMany)),
                Err(reason) => refused.push((index, reason)),
            }
        }
        if added.is_empty() {
            return refused;
        }
        let forms = known
            .iter()
            .map(|value| forms::forms(value.expose_secret()));
        match Table::new(forms.flatten().collect(), self.shared.shapes) {
            Ok(table) => {
                let shared = self.shared.table.write();
                *shared.unwrap_or_else(PoisonError::into_inner) = table.map(Arc::new);
            }
            // What was known before stays known.
            Err(reason) => {
                known.truncate(known_before);
                refused.extend(added.into_iter().map(|index| (index, reason)));
            }
        }
        refused
    }

    /// A stream that is redacted as it comes, in pieces.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(Arc::clone(&self.shared))
    }

    /// A text that is complete.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            redacted if redacted == text.as_bytes() => Cow::Borrowed(text),
            // Every match in a text begins and ends between characters, but for values that are
            // none.
            redacted => Cow::Owned(String::from_utf8_lossy(&redacted).into_owned()),
        }
    }

    /// Bytes that are complete.
    #[must_use]
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut stream = self.stream();
        stream.push(bytes, Instant::now(), &mut out);
        stream.finish_whole(&mut out);
        out
    }

    /// The texts of a change of state: its command line and its message.
    #[must_use]
    pub fn status(&self, mut change: StatusChange) -> StatusChange {
        for text in change.command.iter_mut().chain(&mut change.message) {
            if let Cow::Owned(redacted) = self.text(text) {
                *text = redacted;
            }
        }
        change
    }
}
