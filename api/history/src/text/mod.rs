//! The text of a run as people read it: from events to bytes, to lines, to search results.
//!
//! - [`chunk`]: the bytes of one event.
//! - [`plain_text`]: all chunks as one text. [`byte_index`]: where in the run a byte of that text
//!   lies.
//! - [`lines`]: chunks joined to lines, as a reader sees them: `terminal_row` and `record_row`.
//! - [`search`]: lines that match a [`pattern`].
//!
//! Everything here works on events in order, within the bounds that each file states. Events come
//! from [`crate::pages`].

pub mod byte_index;
pub mod chunk;
pub mod lines;
#[cfg(test)]
mod lines_tests;
pub mod pattern;
pub mod plain_text;
mod record_row;
pub mod search;
mod search_lines;
mod terminal_row;
