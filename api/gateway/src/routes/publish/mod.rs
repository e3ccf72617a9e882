//! Publishing by the crate and by `runcast wrap` through this gateway, for agents that do not reach
//! Redis, or are not to.
//!
//! - [`append`]: batches of a producer, in order, by the append script;
//! - [`notices`]: one long answer that says what Postgres holds, and which commands wait;
//! - [`commands`]: an answered command is removed;
//! - [`heartbeats`]: the heartbeat of an agent.
//!
//! The guarantees are those of the append script, whichever way a batch takes: an agent may change
//! over between Redis and gateways at any time. [`protocol_version`] refuses agents that speak
//! another version of the protocol. [`published_runs`] is what a gateway remembers of a
//! run, so that an append needs no Postgres. Any other client publishes with
//! [`ingest`](super::ingest).

pub mod append;
pub mod commands;
pub mod heartbeats;
pub mod notices;
mod protocol_version;
mod published_runs;
