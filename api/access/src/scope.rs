//! What a principal may do, as tokens and roles name it.

use std::fmt;
use std::str::FromStr;

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See runs and what they printed.
    Read,
    /// Create runs and publish to them.
    Publish,
    /// Cancel, pause, and feed runs.
    Control,
    /// Everything.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Read, Self::Publish, Self::Control, Self::Admin];

    /// The name in tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "runs:read",
            Self::Publish => "runs:publish",
            Self::Control => "runs:control",
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
            .ok_or("expected runs:read, runs:publish, runs:control or admin")
    }
}
