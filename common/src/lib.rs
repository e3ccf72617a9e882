//! The stream contract of Runcast, shared by both ends of a run stream.
//!
//! What a producer writes and what every reader relies on stands here and nowhere else:
//!
//! - [`event`]: one event is one JSON line; [`entry`]: one Redis Stream entry is a batch of lines;
//!   [`body`]: how they travel in it.
//! - [`id`]: where an event stands in its run, and therefore what a cursor is.
//! - [`keys`]: every Redis key and channel that exists.
//! - [`script`]: the Lua scripts, the only writers of a run stream, with typed calls and replies.
//! - [`control`]: commands to agents, from the gateway.
//! - [`pulse`]: signs of life of agents, and [`fleet`]: what the worker makes of them; [`update`]: what is told of that, and of
//!   the end of runs.
//! - [`leftovers`]: what may be left in Redis by what is no more.
//! - [`mirror`]: copies of what Postgres holds about access.
//! - [`limits`]: every bound of the contract with its reason.
//! - [`seal`]: count, bytes and checksum by which a stored run proves to be whole.
//!
//! Beside it, what both ends need to run at all: [`connect`] (Redis), [`backoff`], [`config`]
//! (environment, secrets) and [`telemetry`].

pub mod amount;
pub mod backoff;
pub mod body;
pub mod config;
pub mod connect;
pub mod control;
pub mod entry;
pub mod event;
pub mod fleet;
pub mod id;
pub mod keys;
pub mod leftovers;
pub mod limits;
pub mod mirror;
pub mod pulse;
pub mod rate;
pub mod script;
pub mod seal;
pub mod telemetry;
pub mod update;

/// The `redis` crate that this contract is spoken with, so that every crate uses the same one.
pub use redis;
