//! The stream contract of Runcast, shared by both ends of a run stream.
//!
//! - [`protocol`]: what a producer writes and every reader relies on: events, entries, ids, keys,
//!   limits, seals, and commands to agents.
//! - [`scripts`]: the Lua scripts, the only writers of a run stream, with typed calls and replies.
//! - [`presence`]: heartbeats of agents, who is silent, and what changed about a run.
//! - [`key_scan`]: Redis keys whose run or agent is gone.
//! - [`cache`]: copies of access data that Postgres owns. [`rate_limit`]: quotas counted in Redis.
//!
//! What both ends need to run at all: [`connect`] (Redis), [`backoff`], [`config`] (environment,
//! secrets) and [`telemetry`].

pub mod backoff;
pub mod cache;
pub mod config;
pub mod connect;
pub mod key_scan;
pub mod presence;
pub mod protocol;
pub mod rate_limit;
pub mod scripts;
pub mod telemetry;

/// The `redis` crate that this contract is spoken with, so that every crate uses the same one.
pub use redis;
