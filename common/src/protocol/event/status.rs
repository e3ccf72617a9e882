//! Payload of `status`: a variation starts, ends or changes its state.

use serde::{Deserialize, Serialize};

use crate::protocol::seal::Seal;

/// The status of a run or of a variation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Created; no event has arrived yet.
    Pending,
    /// Running.
    Running,
    /// Ended successfully.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended by a command to cancel it.
    Cancelled,
    /// Silent for too long. The run may come back.
    Lost,
}

impl Status {
    /// Returns whether no further status is expected.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire and in Postgres.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// Payload of `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The new status.
    pub status: Status,
    /// The command line, at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Host name, at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Process id, at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Exit code of the process, unless a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the producer has published before this event; only with a final status.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

impl StatusChange {
    /// A change to `status` without details.
    #[must_use]
    pub const fn to(status: Status) -> Self {
        Self {
            status,
            command: Vec::new(),
            host: None,
            pid: None,
            exit_code: None,
            signal: None,
            message: None,
            seal: None,
        }
    }
}
