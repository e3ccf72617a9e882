//! What a reply to an append call asks the sender to do.

use redis::RedisError;
use runcast_common::scripts::AppendReply;

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
    Disconnect(RedisError),
}

/// Decides on a reply. `is_current` is false if the sender superseded the call after sending it.
pub(super) fn classify(result: Result<AppendReply, RedisError>, is_current: bool) -> ReplyAction {
    let error = match result {
        Ok(appended) if is_current => return ReplyAction::Apply(appended),
        Ok(appended) => return ReplyAction::ApplyDurable(appended),
        Err(error) => error,
    };
    // With these codes Redis has rejected the call without executing anything.
    match error.code() {
        Some("NOSCRIPT" | "OOM" | "MISCONF" | "BUSY") if !is_current => ReplyAction::Ignore,
        Some("NOSCRIPT") => ReplyAction::LoadScript,
        Some("OOM" | "MISCONF" | "BUSY") => ReplyAction::Pause(error.to_string()),
        _ => ReplyAction::Disconnect(error),
    }
}
