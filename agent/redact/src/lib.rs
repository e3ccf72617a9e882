//! Redaction at the source: secret values never leave the process in what it publishes.
//!
//! ```
//! use runcast_redact::Redactor;
//!
//! let redactor = Redactor::new();
//! redactor.add(b"correct horse battery").expect("long enough");
//! assert_eq!(redactor.text("it is correct horse battery"), "it is [redacted]");
//! assert_eq!(redactor.text("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"), "[redacted]");
//! ```
//!
//! - `redactor`: [`Redactor`], the values and the automaton that finds them;
//! - `env`, `secret_name`, `name_pattern`: which variables of an environment hold secrets;
//! - [`CommandLine`], `argument_word`: which arguments of a command do;
//! - `secret_parts`, `address`: fields of structured values, and passwords in addresses;
//! - `secret_value`, `common_words`, `shape`: which values are rejected, and why;
//! - `encodings`: how a value looks in base64, hex, JSON, HTML, URLs and shells;
//! - `token_formats`, `token_table`: tokens and keys that are recognized without their value;
//! - `automaton`, `prefix_filter`: the search for all of these at once;
//! - `stream`, `held_back`: a stream in pieces, what is held back, and for how long;
//! - `cursor`, `escape_sequences`: what is found although colours interrupt it;
//! - `add_mask`, [`workflow_command`]: values that a command names in its own output.
//!
//! [`MASK`] replaces a match, whatever its length. Not found are values that were encoded in
//! another way (compressed, encrypted, reversed, twice), with anything but line ends and escape
//! sequences inserted, or in parts that are printed separately. Redaction is a safety net for
//! programs that should not print secrets in the first place.

mod add_mask;
mod address;
mod argument_word;
mod automaton;
mod command_line;
mod common_words;
mod cursor;
mod encodings;
mod env;
mod escape_sequences;
mod held_back;
mod name_pattern;
mod prefix_filter;
mod redactor;
mod secret_name;
mod secret_parts;
mod secret_value;
mod shape;
mod stream;
mod style_sequence;
#[cfg(test)]
mod tests;
mod token_formats;
mod token_table;
pub mod workflow_command;

pub use command_line::CommandLine;
pub use env::{EnvRedaction, IgnoredVariable, from_variables};
pub use name_pattern::{InvalidNamePattern, NamePattern};
pub use redactor::Redactor;
pub use secret_value::{InvalidSecretValue, MASK};
pub use stream::RedactStream;
