//! Publishing by the crate and by `runcast wrap` through this gateway, for agents that do not reach
//! Redis, or are not to.
//!
//! - [`append`]: batches of a producer, in order, by the append script;
//! - [`notices`]: one long answer that says what Postgres holds, and which commands wait;
//! - [`commands`]: an answered command is removed;
//! - [`heartbeats`]: the heartbeat of an agent.
//!
//! The guarantees are those of the append script, whichever way a batch takes: an agent may change
//! over between Redis and gateways at any time. [`published_runs`] is what a gateway remembers of a
//! run, so that an append needs no Postgres. Any other client publishes with
//! [`ingest`](super::ingest).

pub mod append;
pub mod commands;
pub mod heartbeats;
pub mod notices;
mod published_runs;

use axum::http::HeaderMap;
use runcast_common::protocol::append_calls::{PROTOCOL_HEADER, PROTOCOL_VERSION};

use crate::problem::Problem;

/// Refuses an agent that speaks another version of the protocol.
fn check_protocol(headers: &HeaderMap) -> Result<(), Problem> {
    let stated = headers.get(PROTOCOL_HEADER).map(|value| value.to_str());
    match stated {
        Some(Ok(text)) if text.parse() == Ok(PROTOCOL_VERSION) => Ok(()),
        Some(Ok(text)) if text.len() <= 20 => Err(Problem::bad_request(format!(
            "the agent publishes by version {text} of the protocol, this gateway by version \
             {PROTOCOL_VERSION}: update the older of the two"
        ))),
        _ => Err(Problem::bad_request(format!(
            "the header Runcast-Protocol must state the version of the protocol, {PROTOCOL_VERSION}"
        ))),
    }
}
