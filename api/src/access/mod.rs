//! Who may do what.
//!
//! A [`Principal`](principal::Principal) stands behind every request: a program by the token in its `Authorization` header,
//! a browser by its session cookie. Tokens and session ids are random, and only their SHA-256 is
//! stored; a look-up compares hashes, so its time tells nothing about the secret. What a principal may
//! do is decided by its scopes, and a token that is bound to a run may touch no other.

pub mod address;
pub mod guard;
pub mod limit;
pub mod principal;
pub mod rules;
pub mod secret;
pub mod session;

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
