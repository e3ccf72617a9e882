//! The gateway: HTTP, and the page.
//!
//! The way of a request through the crate:
//!
//! 1. [`server`] accepts the connection, reads the request and notes where it came from.
//! 2. [`router`] passes it through the [`middleware`] stack: one list, from outside to inside. The
//!    policy of its route is looked up ([`middleware::route_policy`]), its credential is checked
//!    ([`middleware::authorize`]) and it is counted ([`middleware::rate_limit`]).
//! 3. A handler in [`routes`], one file per resource, reads its input with [`extract`] and answers.
//! 4. [`server`] sends the answer. If the answer is a stream of one run, the server hands the
//!    socket to the writer threads of `runcast-fanout`.
//!
//! [`state`] holds what all of them share. [`DirectRedis`] gives agents users of Redis.
//! [`readiness`] answers `/readyz`. [`origins`] parses the setting of allowed origins.
//!
//! Errors: a handler or middleware that cannot answer returns a [`problem::Problem`], which becomes
//! a problem document (RFC 9457) with one of these statuses.
//!
//! - 400: the input is malformed; the text names the parameter or field.
//! - 401: there is no valid credential. 403: the scope is missing, or does not cover the run.
//! - 404: the resource does not exist. 409: its state does not allow this.
//! - 429: a limit is reached; `Retry-After` says when to retry.
//! - 500: an error that a retry does not mend; the log has the details.
//! - 503: Redis, Postgres or the archive does not answer; retry.

mod direct_redis;
pub mod extract;
pub mod middleware;
pub mod origins;
pub mod problem;
pub mod readiness;
mod router;
pub mod routes;
pub mod server;
pub mod state;

pub use direct_redis::DirectRedis;
pub use state::{Gateway, GatewayParts};
