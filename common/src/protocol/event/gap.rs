//! Payload of `gap`: lost events, shown to viewers in place of the events themselves.

use serde::Serialize;

use crate::protocol::event_id::EventId;

/// Payload of `gap`.
#[derive(Debug, Clone, Serialize)]
pub struct Gap<'a> {
    /// Number of lost events, if known.
    pub count: Option<u64>,
    /// Bytes known to be lost.
    pub bytes: u64,
    /// The reason, in one word.
    pub reason: &'a str,
    /// Last event before the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<EventId>,
    /// First event after the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<EventId>,
}
