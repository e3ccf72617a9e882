//! Authentication and authorization: who sends a request, what they may do, and how often.
//!
//! # The way of a request with a token
//!
//! 1. The gateway finds the [`credential`] of a request: a stream ticket where the route accepts
//!    one, else the `Authorization` header, else the session cookie.
//! 2. [`authenticate`] turns it into a [`principal`]. Tokens and permissions come from the
//!    [`credential_cache`], sessions from [`session::lifetime`], tickets from [`stream_ticket`].
//!    The first two read [through](read_through) copies in Redis to Postgres, which owns them.
//! 3. The principal checks its [`grant`]s against the scope, and the run, of the route; where
//!    labels of runs decide, [`run_labels`] knows them. The rights of a token of a run are also
//!    those of its parent ([`run_token`]), which is looked up with it.
//! 4. [`rate_limit`] counts the request for the principal, or for its [address](client_ip).
//!    [`usage_log`] records that the token was used.
//!
//! # The way of a change
//!
//! 1. A change of a token, session or user is committed in Postgres, whose triggers put it into an
//!    outbox.
//! 2. [`invalidation`] deletes the copies in Redis and notifies all gateways, before a revocation
//!    is answered.
//! 3. [`revocations`] receives the notification at each gateway, looks the credentials of its
//!    [`open_streams`] up again, and closes the streams whose credential has lost its rights.
//!
//! # The other files
//!
//! - [`session`], [`password`], [`oidc`] and [`sign_in_code`]: the ways to sign in. [`cookie`]
//!   stores their secrets in the browser. [`secret`] generates and hashes secrets, and issues
//!   tokens.
//! - [`access`]: the type that holds the parts of this crate for a gateway. [`scope`]: what a grant
//!   may allow. [`metrics`]: what this crate counts.
//!
//! # Errors
//!
//! [`AccessError`] is the answer to one request: unauthorized (401), forbidden (403), or a store
//! did not answer (503). Functions that return `StoreError` or `RedisFailure` fail only if Postgres
//! or Redis fails, and where a copy in Redis can be used, an outage of Postgres is no error.
//! [`IssueError`](secret::IssueError), [`PasswordError`](password::PasswordError) and
//! [`SignInRefused`](oidc::SignInRefused) name each case. Nothing is allowed because a store does
//! not answer.

mod access;
mod authenticate;
pub mod client_ip;
mod cookie;
pub mod credential;
mod credential_cache;
pub mod error;
pub mod grant;
mod invalidation;
pub mod metrics;
pub mod oidc;
pub mod open_streams;
pub mod password;
pub mod principal;
pub mod rate_limit;
mod read_through;
pub mod revocations;
pub mod run_labels;
mod run_token;
pub mod run_user;
mod scope;
pub mod secret;
pub mod session;
pub mod sign_in_code;
pub mod stream_ticket;
mod usage_log;

pub use access::Access;
pub use error::AccessError;
pub use scope::Scope;
