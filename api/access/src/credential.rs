//! Credentials: what a request is authenticated by, and what the rights of a principal rest on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Scope;
use crate::grant::{Grant, Scopes};
use crate::secret::Secret;

/// The one credential of a request that counts, as the gateway found it: a ticket where the route
/// accepts one, else the `Authorization` header, else the session cookie.
#[derive(Debug)]
pub enum PresentedCredential {
    /// A stream ticket in the URL.
    Ticket(Secret),
    /// A bearer token in the `Authorization` header.
    Bearer(Secret),
    /// An `Authorization` header of another form.
    Malformed,
    /// The id of a session, from its cookie.
    Session(Secret),
    /// No credential at all.
    Absent,
}

/// What a principal signed in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credential {
    /// A token, by its SHA-256.
    Token([u8; 32]),
    /// A session, by the SHA-256 of its id.
    Session([u8; 32]),
    /// A user who has just signed in.
    User(Uuid),
}

/// What the rights of a principal rest on: its credential, and the bounds of the ticket if it
/// presented one. One credential may have several tickets, which allow different things.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthSource {
    /// The credential; of a ticket, the one that created it.
    pub credential: Credential,
    /// The bounds of the ticket, if one was presented.
    pub ticket: Option<Bounds>,
}

impl From<Credential> for AuthSource {
    fn from(credential: Credential) -> Self {
        Self {
            credential,
            ticket: None,
        }
    }
}

/// Which runs a ticket may read, of those that its creator may read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// None: all of them.
    runs: Option<BTreeSet<Uuid>>,
}

impl Bounds {
    /// Only these runs.
    pub fn of(runs: impl IntoIterator<Item = Uuid>) -> Self {
        Self {
            runs: Some(runs.into_iter().collect()),
        }
    }

    /// The grants of a ticket whose creator may do everything.
    pub(super) fn grants(&self) -> Vec<Grant> {
        let read = |run| Grant {
            scopes: Scopes::default().with(Scope::Read),
            run,
            labels: None,
        };
        match &self.runs {
            None => vec![read(None)],
            Some(runs) => runs.iter().map(|run| read(Some(*run))).collect(),
        }
    }
}
