//! The kinds of events.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an event is about. Postgres stores the number, so its meaning must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Kind {
    /// What the run produces: stdout of a command, the answer of an agent.
    Output = 0,
    /// Diagnostics: stderr of a command, structured log lines.
    Log = 1,
    /// A change of a variation's status. The last one carries the producer's
    /// [`Seal`](crate::protocol::seal::Seal).
    Status = 2,
    /// Progress of the work.
    Progress = 3,
    /// Named numbers, such as tokens used.
    Metric = 4,
    /// A heartbeat that is worth storing.
    Heartbeat = 5,
    /// A command to the run, and its progress.
    Control = 6,
    /// Lost events, counted, so that no loss goes unnoticed.
    Gap = 7,
}

impl Kind {
    /// All kinds, by number.
    pub const ALL: [Self; 8] = [
        Self::Output,
        Self::Log,
        Self::Status,
        Self::Progress,
        Self::Metric,
        Self::Heartbeat,
        Self::Control,
        Self::Gap,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Log => "log",
            Self::Status => "status",
            Self::Progress => "progress",
            Self::Metric => "metric",
            Self::Heartbeat => "heartbeat",
            Self::Control => "control",
            Self::Gap => "gap",
        }
    }

    /// The number in Postgres.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names neither a kind nor a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown channel {0:?}: expected output, log, status, progress, metric, heartbeat or control, optionally with :<variation>, such as output:0"
)]
pub struct UnknownChannel(String);

impl UnknownChannel {
    /// Quotes at most 64 characters of the text.
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl FromStr for Kind {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownChannel::new(text))
    }
}
