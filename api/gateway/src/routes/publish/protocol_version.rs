//! The version of the protocol that an agent states with every call.

use axum::http::HeaderMap;
use runcast_common::protocol::append_calls::{PROTOCOL_HEADER, PROTOCOL_VERSION};

use crate::problem::Problem;

/// Refuses an agent that speaks another version of the protocol.
pub(super) fn check_protocol(headers: &HeaderMap) -> Result<(), Problem> {
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
