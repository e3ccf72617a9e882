//! The stream contract of Runcast, shared by publishers and by all services.
//!
//! - [`protocol`]: what producers write and readers rely on: events, entries, ids, keys, limits
//!   and seals.
//! - [`scripts`]: the Lua scripts, the only writers of a run stream, with typed calls and replies.
//! - [`commands`]: commands from the gateway to agents.
//! - [`presence`]: heartbeats of agents, silent agents, and updates of runs.
//! - [`cache`]: copies in Redis of access data that Postgres owns. [`rate_limit`]: quotas.
//!   [`key_scan`]: deleting keys of runs and agents that no longer exist. [`run_deletion`]:
//!   deleting a run at once. [`run_users`]: Redis users of agents. [`database_mark`]: the state of
//!   Postgres that services have seen last.
//! - [`connect`]: connections to Redis. [`backoff`], [`config`] (settings, secrets) and
//!   [`telemetry`] and [`log_limit`] (logging).
//!
//! Errors: a call that uses a Redis connection returns [`redis::RedisError`] where the caller owns
//! the connection, including for a script reply of an unexpected shape, and
//! [`connect::RedisFailure`] where [`connect::Redis`] does. Parsers return an error type of their
//! own that says what is expected.

pub mod backoff;
pub mod cache;
pub mod commands;
pub mod config;
pub mod connect;
pub mod database_mark;
pub mod key_scan;
pub mod log_limit;
pub mod presence;
pub mod protocol;
pub mod rate_limit;
pub mod ready_lag;
pub mod run_deletion;
pub mod run_users;
pub mod scripts;
pub mod telemetry;

/// Re-exported, so that all crates use the same version.
pub use redis;
