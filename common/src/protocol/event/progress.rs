//! Payload of `progress`: how much of the work is done.

use serde::Serialize;

/// Payload of `progress`.
#[derive(Debug, Clone, Serialize)]
pub struct Progress<'a> {
    /// The work that progresses.
    pub label: &'a str,
    /// Work done, in the unit of `total`.
    pub current: u64,
    /// All of the work, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `error`, `paused`, `busy` (the amount done is unknown) or `cleared` (viewers hide it);
    /// absent in the normal case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'a str>,
}
