//! Errors of calls to Redis, and what each means for the connection and the slot map.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// The server replied with an error, or the connection failed.
    #[error("Redis at {address}: {error}")]
    Failed {
        /// The server, without credentials.
        address: String,
        /// The cause.
        error: RedisError,
    },
    /// No reply before the deadline.
    #[error("Redis at {address} did not answer within {} ms", deadline.as_millis())]
    TimedOut {
        /// The server, without credentials.
        address: String,
        /// How long the caller waited.
        deadline: Duration,
    },
}

impl RedisFailure {
    /// The error code of the reply, such as `NOGROUP`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } => error.code(),
            Self::TimedOut { .. } => None,
        }
    }

    /// Returns whether the server has refused the credentials, or what they allow.
    #[must_use]
    pub fn is_refused_access(&self) -> bool {
        let is_refused = |error: &RedisError| {
            error.kind() == ErrorKind::AuthenticationFailed
                || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
        };
        matches!(self, Self::Failed { error, .. } if is_refused(error))
    }

    /// Returns whether the server is unreachable or temporarily unable to answer, as opposed to
    /// having rejected the call.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Failed { error, .. } => {
                breaks_connection(error) || is_redirect(error) || refuses_writes(error)
            }
            Self::TimedOut { .. } => true,
        }
    }

    /// Why the server does not work, as metrics name it; none if it has rejected the call.
    #[must_use]
    pub fn outage(&self) -> Option<&'static str> {
        let code = self.code().unwrap_or_default();
        match code {
            "OOM" => Some("redis_full"),
            "MISCONF" => Some("redis_not_persisting"),
            "NOREPLICAS" => Some("redis_no_replicas"),
            "BUSY" => Some("redis_busy"),
            _ => self.is_outage().then_some("redis_unreachable"),
        }
    }

    /// All values of [`RedisFailure::outage`].
    pub const OUTAGES: [&'static str; 5] = [
        "redis_full",
        "redis_not_persisting",
        "redis_no_replicas",
        "redis_busy",
        "redis_unreachable",
    ];

    /// The node that a `MOVED` reply names.
    pub(super) fn moved_to(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } if error.code() == Some("MOVED") => {
                error.redirect_node().map(|(address, _slot)| address)
            }
            _ => None,
        }
    }
}

/// Returns whether the connection is unusable after this error, or leads to the wrong server.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"))
        || error.kind() == ErrorKind::MasterNameNotFoundBySentinel
}

/// Returns whether the server executes no writes for now: its memory is full, it cannot save to its
/// disk, has too few replicas, or a script runs for too long. It has executed nothing.
pub(super) fn refuses_writes(error: &RedisError) -> bool {
    matches!(
        error.code(),
        Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY")
    )
}

/// Returns whether a cluster node rejected the call because it does not serve the slot: not at all,
/// not yet or no longer. The node has executed nothing.
fn is_redirect(error: &RedisError) -> bool {
    error.is_cluster_error()
}

/// The first error of a failed pipeline, which otherwise reports those of all its commands.
pub(super) fn first_error(error: RedisError) -> RedisError {
    let errors = error.clone().into_server_errors();
    match errors.as_deref().and_then(<[_]>::first) {
        Some((_, first)) => first.clone().into(),
        None => error,
    }
}

/// The error for a server that is not the master.
pub(super) fn no_master(detail: String) -> RedisError {
    let kind = ErrorKind::Server(ServerErrorKind::MasterDown);
    RedisError::from((kind, "no master is available", detail))
}
