//! What a request is authenticated by, and what the rights of a principal rest on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Scope;
use crate::grant::{Grant, Scopes};
use crate::secret::Secret;

/// The one credential of a request that counts, as the gateway found it: a ticket where one is accepted, else the
/// `Authorization` header, else the session cookie.
#[derive(Debug)]
pub enum PresentedCredential {
    /// A stream ticket in the address.
    Ticket(Secret),
    /// A bearer token in the `Authorization` header.
    Bearer(Secret),
    /// An `Authorization` header of another form.
    Malformed,
    /// The id of a session, from its cookie.
    Session(Secret),
    /// None at all.
    Absent,
}

/// What somebody was let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credential {
    /// A token, by its SHA-256.
    Token([u8; 32]),
    /// A session, by the SHA-256 of its id.
    Session([u8; 32]),
    /// A user who has just signed in.
    User(Uuid),
}

/// What somebody's rights rest on. By one credential and several tickets for it, different things may be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthSource {
    /// What they were let in by, or made the ticket with that they were let in by.
    pub credential: Credential,
    /// The bounds of that ticket, if it was one.
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

/// What may be read by a ticket, of what whoever made it may read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// None: all of it.
    runs: Option<BTreeSet<Uuid>>,
}

impl Bounds {
    /// These runs alone.
    #[must_use]
    pub fn of(runs: impl IntoIterator<Item = Uuid>) -> Self {
        Self {
            runs: Some(runs.into_iter().collect()),
        }
    }

    /// What they leave of a right to everything.
    pub(super) fn grants(&self) -> Vec<Grant> {
        let reading = |run| Grant {
            scopes: Scopes::default().with(Scope::Read),
            run,
            labels: None,
        };
        match &self.runs {
            None => vec![reading(None)],
            Some(runs) => runs.iter().map(|run| reading(Some(*run))).collect(),
        }
    }
}
