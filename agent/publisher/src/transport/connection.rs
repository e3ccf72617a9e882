//! [`Connection`]: one connection, to Redis or to a gateway, with several calls of the append
//! script in flight.
//!
//! Replies come in the order of the calls, so the calls form a queue and only the oldest one is
//! awaited.

use runcast_common::connect::RedisFailure;
use runcast_common::scripts::{Append, AppendReply};

use super::gateway::GatewayConnection;
use super::redis::RedisConnection;
use crate::gateway_client::ApiError;
use crate::retransmit::send_window::Request;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Connect(#[from] RedisFailure),
    #[error("an append failed: {0}")]
    Call(RedisFailure),
    #[error(transparent)]
    Gateway(#[from] ApiError),
}

impl ConnectionError {
    /// Whether Redis refused who we are, or what we ask for: other credentials may be needed. The
    /// reply to a script does not say whether it lacked a permission.
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Self::Connect(failure) => failure.is_refused_access(),
            Self::Call(failure) => failure.is_refused_access() || !failure.is_outage(),
            Self::Gateway(_) => false,
        }
    }
}

/// Why a call was not executed, or it is unknown whether it was.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Redis does not know the script: load it, then send again.
    UnknownScript,
    /// No writes are executed at the moment, for this reason: send again later.
    Busy(String),
    /// Anything else: close the connection.
    Failed(ConnectionError),
}

/// A reply and the request that it answers.
#[derive(Debug)]
pub(crate) struct RequestReply {
    pub(crate) request: Request,
    /// False if [`Connection::supersede_calls`] was called after the request was sent.
    pub(crate) is_current: bool,
    pub(crate) result: Result<AppendReply, CallError>,
}

/// A connection and its unanswered calls.
pub(crate) enum Connection {
    Redis(Box<RedisConnection>),
    Gateway(Box<GatewayConnection>),
}

impl Connection {
    /// Loads the append script into the server.
    pub(crate) async fn load_script(&mut self) -> Result<(), ConnectionError> {
        match self {
            Self::Redis(redis) => redis.load_script().await,
            // The gateway does that.
            Self::Gateway(_) => Ok(()),
        }
    }

    /// Number of unanswered calls.
    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Redis(redis) => redis.in_flight(),
            Self::Gateway(gateway) => gateway.in_flight(),
        }
    }

    /// How many calls may be unanswered.
    pub(crate) const fn max_in_flight(&self) -> usize {
        match self {
            Self::Redis(_) => RedisConnection::MAX_IN_FLIGHT,
            Self::Gateway(_) => GatewayConnection::MAX_IN_FLIGHT,
        }
    }

    /// Sends a call, without waiting.
    pub(crate) fn send(&mut self, append: &Append<'_>) {
        match self {
            Self::Redis(redis) => redis.send(append),
            Self::Gateway(gateway) => gateway.send(append),
        }
    }

    /// Marks all calls in flight as superseded: sending continues elsewhere.
    pub(crate) fn supersede_calls(&mut self) {
        match self {
            Self::Redis(redis) => redis.supersede_calls(),
            Self::Gateway(gateway) => gateway.supersede_calls(),
        }
    }

    /// Waits for the reply to the oldest call, forever if there is none. Cancel safe.
    pub(crate) async fn next_reply(&mut self) -> Result<RequestReply, ConnectionError> {
        match self {
            Self::Redis(redis) => redis.next_reply().await,
            Self::Gateway(gateway) => gateway.next_reply().await,
        }
    }
}
