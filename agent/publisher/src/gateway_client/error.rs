//! Why a call of the gateway failed. Every message names the setting to check.

use reqwest::StatusCode;
use runcast_common::config::ConfigError;

/// Why a call of the gateway failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A setting is missing or invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gateway does not answer.
    #[error("RUNCAST_URL {url} cannot be reached: {reason}")]
    Unreachable {
        /// The gateway's address, without credentials.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The gateway does not accept the token, or the token lacks a permission.
    #[error("RUNCAST_TOKEN is refused by {url} ({status}): {detail}")]
    Unauthorized {
        /// The gateway's address, without credentials.
        url: String,
        /// 401 or 403.
        status: StatusCode,
        /// The gateway's explanation, or what to do.
        detail: String,
    },
    /// The run does not exist.
    #[error("there is no run {run} at {url}")]
    NoSuchRun {
        /// The requested run.
        run: String,
        /// The gateway's address, without credentials.
        url: String,
    },
    /// The gateway rejects the call for another reason.
    #[error("{url} answers {status}: {detail}")]
    Refused {
        /// The gateway's address, without credentials.
        url: String,
        /// The status of its response.
        status: StatusCode,
        /// Its explanation.
        detail: String,
    },
    /// The response is not one of a gateway of this version.
    #[error("RUNCAST_URL {url} answers, but not as a Runcast gateway does: {reason}")]
    Unexpected {
        /// The address, without credentials.
        url: String,
        /// What is wrong with the response.
        reason: String,
    },
}

impl ApiError {
    /// Whether the gateway answers that it can take nothing at the moment.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE,
                ..
            }
        )
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
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

/// What a proxy answers that does not know the gateway, or wants its user to sign in.
pub(super) const A_PAGE: &str = "with a page for people, as a proxy or a sign-in does";

/// Longest explanation of a gateway in a message.
const MAX_DETAIL_CHARS: usize = 300;

/// Whether an answer is HTML.
pub(super) fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

/// The explanation of a gateway as a part of one line.
pub(super) fn one_line(detail: &str) -> String {
    let letters = detail.chars().take(MAX_DETAIL_CHARS);
    letters
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// What to look at for a cause that is rarely understood.
pub(super) fn hint(reason: &str, trusts_bundled: bool) -> &'static str {
    let has = |part: &str| reason.contains(part);
    if has("UnknownIssuer") && trusts_bundled {
        ": this machine has no certificate authorities, so Mozilla's are trusted; SSL_CERT_FILE names others"
    } else if has("UnknownIssuer") {
        ": SSL_CERT_FILE names the certificate authorities to trust"
    } else if has("not valid yet") || has("NotValidYet") || has("expired") || has("Expired") {
        ": is the clock of this machine right?"
    } else if has("InvalidContentType") {
        ": no TLS is spoken there, is it http://?"
    } else if has("invalid HTTP version") {
        ": no plain HTTP is spoken there, is it https://?"
    } else {
        ""
    }
}
