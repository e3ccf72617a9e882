//! The text of a run, as people read it: from events to bytes, to lines, to what is looked for.
//!
//! [`chunk`] takes the bytes out of an event, [`plain`] makes one text of them, [`measure`] finds a place
//! in that text, [`lines`] joins chunks to lines, [`search`] finds a [`pattern`] in them. Everything here works on
//! events in order and holds no more than its bounds say; where events come from is
//! [`crate::pages`]'s business.

pub mod byte_index;
pub mod chunk;
pub mod lines;
pub mod pattern;
pub mod plain_text;
pub mod search;
