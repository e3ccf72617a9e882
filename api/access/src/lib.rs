//! Who may do what, and how often.
//!
//! - [`principal`]: who sends a request, found out by [`authenticate`] from a [`credential`]: a token, a session cookie, or a
//!   [`stream_ticket`]. [`grant`]: what a principal may do.
//! - [`session`], [`password`], [`oidc`]: signing in. [`sign_in_code`]: the one-time code of `runcastd dev`.
//!   [`secret`]: tokens. [`read_through`]: copies in Redis of what Postgres
//!   owns, deleted by [`invalidation`].
//! - [`open_streams`] and [`revocations`]: streams end with the credential that opened them.
//! - [`rate_limit`]: how much a client may ask for. [`client_ip`]: whose address counts. [`usage_log`]: when tokens were used.

mod access;
mod authenticate;
pub mod client_ip;
mod cookie;
pub mod credential;
pub mod error;
pub mod grant;
pub mod invalidation;
pub mod metrics;
pub mod oidc;
pub mod open_streams;
pub mod password;
pub mod principal;
pub mod rate_limit;
pub mod read_through;
mod revocations;
pub mod run_labels;
mod scope;
pub mod secret;
pub mod session;
pub mod sign_in_code;
pub mod stream_ticket;
mod usage_log;

pub use access::Access;
pub use error::AccessError;
pub use scope::Scope;
