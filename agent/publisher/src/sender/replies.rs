//! What a reply to an append call asks the sender to do.

use runcast_common::scripts::AppendReply;

use crate::transport::connection::{CallError, ConnectionError};

/// The sender's reaction to one reply.
#[derive(Debug)]
pub(super) enum ReplyAction {
    /// Apply the reply to the send window.
    Apply(AppendReply),
    /// The call was superseded: use only what the reply says about Postgres.
    ApplyDurable(AppendReply),
    /// The call was superseded, and the reply says nothing.
    Ignore,
    /// Redis does not know the script: load it, then send again.
    LoadScript,
    /// Redis executes no writes at the moment, for this reason: send again later.
    Pause(String),
    /// Anything else: close the connection.
    Disconnect(ConnectionError),
}

/// Decides on a reply. `is_current` is false if the sender superseded the call after sending it.
pub(super) fn classify(result: Result<AppendReply, CallError>, is_current: bool) -> ReplyAction {
    match result {
        Ok(appended) if is_current => ReplyAction::Apply(appended),
        Ok(appended) => ReplyAction::ApplyDurable(appended),
        Err(CallError::UnknownScript | CallError::Busy(_)) if !is_current => ReplyAction::Ignore,
        Err(CallError::UnknownScript) => ReplyAction::LoadScript,
        Err(CallError::Busy(reason)) => ReplyAction::Pause(reason),
        Err(CallError::Failed(error)) => ReplyAction::Disconnect(error),
    }
}
