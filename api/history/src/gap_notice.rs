//! A hole in a run, as the server reports it: events that no store has, or a stream that began
//! again.

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;

/// The data of a `gap` frame that the gateway itself sends.
#[derive(Debug, Clone, Serialize)]
pub struct GapNotice {
    /// Always `gap`.
    pub kind: Kind,
    /// The last event before the hole.
    pub after: EventId,
    /// The first event after it.
    pub next: EventId,
    /// How many events are missing, if known.
    pub count: Option<u64>,
    /// The reason, in one word.
    pub reason: &'static str,
}

impl GapNotice {
    /// The notice as an event line.
    pub fn line(&self) -> Vec<u8> {
        // A flat structure of strings and numbers: serializing it cannot fail.
        serde_json::to_vec(self).unwrap_or_else(|_impossible| b"{}".to_vec())
    }
}
