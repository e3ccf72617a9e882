//! Checks an event line and parses the fields that every reader needs.

use std::borrow::Cow;

use serde::Deserialize;

use super::kind::Kind;
use super::line_separators::escaped_length;
use crate::protocol::limits::{MAX_EVENT_BYTES, MAX_VARIATIONS};

/// The common fields of an event line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head<'a> {
    /// Kind of the event.
    pub kind: Kind,
    /// The variation that it belongs to.
    #[serde(default)]
    pub variation: u16,
    /// The producer's clock, Unix milliseconds.
    #[serde(default)]
    pub time: u64,
    /// Severity, if the producer gave one.
    #[serde(default, borrow)]
    pub level: Option<Cow<'a, str>>,
}

/// Why a line is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableLine {
    /// Longer than [`MAX_EVENT_BYTES`].
    #[error("line of {0} bytes is over the limit of {MAX_EVENT_BYTES} bytes")]
    TooLarge(usize),
    /// A carriage return between JSON tokens would break SSE framing.
    #[error("line holds a raw carriage return")]
    CarriageReturn,
    /// Not JSON, not an object, or without a known kind.
    #[error("line is not a JSON event: {0}")]
    NotAnEvent(String),
    /// The variation is not below [`MAX_VARIATIONS`].
    #[error("variation {0} is not below the limit of {MAX_VARIATIONS}")]
    Variation(u16),
}

impl<'a> Head<'a> {
    /// Parses the head of a line, and checks that the whole line is one JSON object. A line that
    /// fails must not reach viewers; it becomes a dead letter.
    pub fn parse(line: &'a [u8]) -> Result<Self, UnreadableLine> {
        // Readers get it with its line separators escaped, which triples it at most.
        let length = match line.len() {
            length if length <= MAX_EVENT_BYTES / 3 => length,
            length if length <= MAX_EVENT_BYTES => escaped_length(line),
            length => length,
        };
        if length > MAX_EVENT_BYTES {
            return Err(UnreadableLine::TooLarge(length));
        }
        if memchr::memchr(b'\r', line).is_some() {
            return Err(UnreadableLine::CarriageReturn);
        }
        // serde also accepts an array of the fields in place of the object.
        if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
            return Err(UnreadableLine::NotAnEvent("it is not a JSON object".into()));
        }
        // The JSON parser does not check the UTF-8 of strings that it skips.
        let text = std::str::from_utf8(line)
            .map_err(|error| UnreadableLine::NotAnEvent(error.to_string()))?;
        let head: Self = serde_json::from_str(text)
            .map_err(|error| UnreadableLine::NotAnEvent(error.to_string()))?;
        if head.variation >= MAX_VARIATIONS {
            return Err(UnreadableLine::Variation(head.variation));
        }
        Ok(head)
    }
}
