//! Who may do what.
//!
//! A [`Principal`](principal::Principal) stands behind every request: a program by the token in its `Authorization` header,
//! a browser by its session cookie, or by a [`ticket`] where it can show neither. Tokens and session ids are random, and only their SHA-256 is
//! stored; a look-up compares hashes, so its time tells nothing about the secret. What a principal may do is decided by its
//! [`grant`]s: those of a user come from their roles, those of a token from its scopes and, if a user has made it,
//! from what that user may do now.
//!
//! One signs in by a password, by a token, or [by an issuer](oidc) that says who one is.
//!
//! Postgres holds all of it. Redis holds copies ([`lookup`], [`session`]), which [`changes`] deletes when something
//! changes; streams that were [`opened`] by it end.

pub mod address;
mod authenticate;
pub mod changes;
mod cookie;
pub mod grant;
pub mod guard;
mod heard;
pub mod limit;
pub mod lookup;
pub mod meter;
mod notes;
pub mod oidc;
pub mod opened;
pub mod password;
pub mod principal;
pub mod rules;
pub mod same_origin;
pub mod secret;
pub mod session;
pub mod ticket;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use runcast_common::cache::LeaseCache;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;

use self::meter::{Meter, Told};
use self::notes::Notes;
use self::opened::Openings;
use self::password::{PasswordError, Passwords};
use self::session::Touched;
use crate::store::Store;

/// All that access needs. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Access(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    redis: Redis,
    keys: Keys,
    mirror: LeaseCache,
    passwords: Passwords,
    notes: Notes,
    openings: Arc<Openings>,
    meter: Meter,
    touched: Touched,
    session_life: Duration,
}

impl Access {
    /// Access to this installation; a session lives so long without a request.
    ///
    /// # Errors
    /// [`PasswordError`] if there is no randomness.
    pub fn new(
        store: Store,
        redis: Redis,
        keys: Keys,
        session_life: Duration,
    ) -> Result<Self, PasswordError> {
        Ok(Self(Arc::new(Parts {
            mirror: LeaseCache::new(redis.clone()),
            store,
            redis,
            keys,
            passwords: Passwords::new()?,
            notes: Notes::default(),
            openings: Arc::default(),
            meter: Meter::default(),
            touched: Touched::default(),
            session_life,
        })))
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn redis(&self) -> &Redis {
        &self.0.redis
    }

    fn keys(&self) -> &Keys {
        &self.0.keys
    }

    fn mirror(&self) -> &LeaseCache {
        &self.0.mirror
    }

    fn notes(&self) -> &Notes {
        &self.0.notes
    }

    fn touched(&self) -> &Touched {
        &self.0.touched
    }

    /// What is open, and by which credential.
    #[must_use]
    pub fn openings(&self) -> &Arc<Openings> {
        &self.0.openings
    }

    fn session_life(&self) -> Duration {
        self.0.session_life
    }

    /// What works on passwords.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// What counts.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// How it stands, for `/readyz`.
    #[must_use]
    pub fn told(&self) -> Told {
        self.meter().show(self.mirror().is_well())
    }
}

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
