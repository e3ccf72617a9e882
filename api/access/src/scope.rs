//! [`Scope`]: a permission, as tokens and roles name it.

use std::fmt;
use std::str::FromStr;

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read runs and their output.
    Read,
    /// Create runs and publish to them.
    Publish,
    /// Send commands to runs: cancel, pause, input.
    Control,
    /// Delete runs, and hold them against deletion.
    Delete,
    /// Redact what runs have printed.
    Redact,
    /// Everything.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Publish,
        Self::Control,
        Self::Delete,
        Self::Redact,
        Self::Admin,
    ];

    /// Its name in tokens and roles.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "runs:read",
            Self::Publish => "runs:publish",
            Self::Control => "runs:control",
            Self::Delete => "runs:delete",
            Self::Redact => "runs:redact",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or(
                "expected runs:read, runs:publish, runs:control, runs:delete, runs:redact or admin",
            )
    }
}
