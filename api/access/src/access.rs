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

use std::sync::Arc;
use std::time::Duration;

use runcast_common::cache::LeaseCache;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;

use crate::metrics::{AccessHealth, Metrics};
use crate::open_streams::OpenStreams;
use crate::password::{PasswordError, Passwords};
use crate::session::lifetime::Touched;
use crate::sign_in_code::SignInCode;
use crate::usage_log::UsageLog;
use runcast_store::Store;

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
    notes: UsageLog,
    openings: Arc<OpenStreams>,
    meter: Metrics,
    touched: Touched,
    sign_in_code: SignInCode,
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
            notes: UsageLog::default(),
            openings: Arc::default(),
            meter: Metrics::default(),
            touched: Touched::default(),
            sign_in_code: SignInCode::default(),
            session_life,
        })))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn redis(&self) -> &Redis {
        &self.0.redis
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(crate) fn mirror(&self) -> &LeaseCache {
        &self.0.mirror
    }

    pub(crate) fn notes(&self) -> &UsageLog {
        &self.0.notes
    }

    pub(crate) fn touched(&self) -> &Touched {
        &self.0.touched
    }

    pub(crate) fn sign_in_code(&self) -> &SignInCode {
        &self.0.sign_in_code
    }

    /// What is open, and by which credential.
    #[must_use]
    pub fn openings(&self) -> &Arc<OpenStreams> {
        &self.0.openings
    }

    pub(crate) fn session_life(&self) -> Duration {
        self.0.session_life
    }

    /// What works on passwords.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// What counts.
    #[must_use]
    pub fn meter(&self) -> &Metrics {
        &self.0.meter
    }

    /// How it stands, for `/readyz`.
    #[must_use]
    pub fn told(&self) -> AccessHealth {
        self.meter().show(self.mirror().is_well())
    }
}
