//! A hole in a run, as the server reports it: events that no store has, or a stream that began again.

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;

/// Data of a `gap` frame that the gateway itself sends.
#[derive(Debug, Clone, Serialize)]
pub struct GapNotice {
    /// Always `gap`.
    pub kind: Kind,
    /// Last event before it.
    pub after: EventId,
    /// First event behind it.
    pub next: EventId,
    /// How many events are missing, if that is known.
    pub count: Option<u64>,
    /// Why, in one word.
    pub reason: &'static str,
}

impl GapNotice {
    /// Its line.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        // A flat structure of strings and numbers: writing it cannot fail.
        serde_json::to_vec(self).unwrap_or_else(|_impossible| b"{}".to_vec())
    }
}
