//! What can go wrong with a call to Redis, and what it says about the connection and the server.

use std::time::Duration;

use redis::{RedisError, ServerErrorKind};

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// The server or the wire said so.
    #[error("Redis at {address}: {error}")]
    Failed {
        /// Where, without credentials.
        address: String,
        /// What exactly.
        error: RedisError,
    },
    /// No answer in time.
    #[error("Redis at {address} did not answer within {} ms", deadline.as_millis())]
    Silent {
        /// Where, without credentials.
        address: String,
        /// How long it was waited for.
        deadline: Duration,
    },
}

impl RedisFailure {
    /// The code of an error that the server answered with, such as `NOGROUP`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } => error.code(),
            Self::Silent { .. } => None,
        }
    }

    /// True if the server could not be reached, or cannot answer for now, as opposed to having refused
    /// something.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Failed { error, .. } => breaks(error) || is_elsewhere(error),
            Self::Silent { .. } => true,
        }
    }

    /// Where the slot lies that was asked for, if the server said that it lies elsewhere for good.
    pub(super) fn moved_to(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } if error.code() == Some("MOVED") => {
                error.redirect_node().map(|(address, _slot)| address)
            }
            _ => None,
        }
    }
}

/// True if an error leaves the connection unusable or pointing at the wrong server.
pub(super) fn breaks(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"))
        || error.kind() == redis::ErrorKind::MasterNameNotFoundBySentinel
}

/// True if a node of a cluster answers for other slots, or for this one neither yet nor any more. It
/// has done nothing then.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    error.is_cluster_error()
}

/// A failed pipeline fails with all errors of its commands; the first one tells enough.
pub(super) fn first_of(error: RedisError) -> RedisError {
    let errors = error.clone().into_server_errors();
    match errors.as_deref().and_then(<[_]>::first) {
        Some((_, first)) => first.clone().into(),
        None => error,
    }
}

/// The error for a server that is not the master.
pub(super) fn no_master(detail: String) -> RedisError {
    let kind = redis::ErrorKind::Server(ServerErrorKind::MasterDown);
    RedisError::from((kind, "there is no master for now", detail))
}
