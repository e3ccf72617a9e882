//! Why a call of the API brought nothing: every message names the setting that is to be looked at.

use reqwest::StatusCode;
use runcast_common::config::ConfigError;

/// Why a call of the API brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A setting is missing or makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No answer.
    #[error("RUNCAST_URL {url} cannot be reached: {reason}")]
    Unreachable {
        /// The gateway's address, without credentials.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The gateway does not know who asks, or does not allow it.
    #[error("RUNCAST_TOKEN is refused by {url} ({status}): {detail}")]
    Unauthorized {
        /// The gateway's address, without credentials.
        url: String,
        /// 401 or 403.
        status: StatusCode,
        /// What the gateway says, or the way out.
        detail: String,
    },
    /// There is no such run.
    #[error("there is no run {run} at {url}")]
    NoSuchRun {
        /// The run that was asked for.
        run: String,
        /// The gateway's address, without credentials.
        url: String,
    },
    /// The gateway refuses for another reason.
    #[error("{url} answers {status}: {detail}")]
    Refused {
        /// The gateway's address, without credentials.
        url: String,
        /// What it answered.
        status: StatusCode,
        /// Its explanation.
        detail: String,
    },
    /// Something answers that is not a gateway of this version.
    #[error("RUNCAST_URL {url} answers, but not as a Runcast gateway does: {reason}")]
    Unexpected {
        /// The address, without credentials.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ApiError {
    /// True if the same call may succeed in a while.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// The innermost cause, which says what happened; the outer ones repeat the address.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
