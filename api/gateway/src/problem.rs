//! Errors as RFC 9457 problem documents: what went wrong, with what, and what to do.
//!
//! Everything that a handler can fail with converts into a [`Problem`]. An outage of a store
//! becomes 503 with a warning in the log; an error that a retry does not mend becomes 500 with an
//! error in the log. Neither tells the client an address or a query.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use runcast_common::connect::RedisFailure;
use runcast_common::protocol::event::UnknownChannel;
use runcast_common::protocol::event_id::MalformedId;
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use runcast_access::AccessError;
use runcast_access::open_streams::Revocation;
use runcast_access::password::PasswordError;
use runcast_access::rate_limit::Denial;
use runcast_access::secret::IssueError;
use runcast_common::log_limit::LogLimit;
use runcast_history::archive;
use runcast_history::reader::ReadError;
use runcast_history::text::search::SearchError;
use runcast_store::StoreError;
use runcast_store::roles::RoleError;
use runcast_store::users::UserError;

/// When to retry if the cause does not say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Characters of a name or id from the request that a problem repeats.
const MAX_QUOTED_CHARS: usize = 64;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Figures for programs, beside the text for people.
    members: Vec<(&'static str, u64)>,
    retry_after: Duration,
}

/// A problem document of RFC 9457. Some problems have further members: figures for programs.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The status.
    status: u16,
    /// What exactly is wrong, and what to do, for people.
    detail: &'a str,
    #[serde(flatten)]
    #[schema(ignore)]
    members: BTreeMap<&'static str, u64>,
}

impl Problem {
    /// Its status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// A problem with this status; `detail` is shown to the client.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            members: Vec::new(),
            retry_after: DEFAULT_RETRY_AFTER,
        }
    }

    /// Says when to retry, where the status allows it.
    pub const fn after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// Adds a figure for programs.
    pub fn with(mut self, name: &'static str, value: u64) -> Self {
        self.members.push((name, value));
        self
    }

    /// 400: the request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: no valid credential.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: the credential is valid, but does not allow this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: `there is no <what> <id>`; a long id is cut.
    pub fn not_found(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(MAX_QUOTED_CHARS).collect();
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
    }

    /// 410: what the request is about was deleted, and does not come back.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, detail)
    }

    /// 429: a limit is reached; when to retry.
    pub fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail).after(retry_after)
    }

    /// 503: a server that is needed does not answer.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 500: the error is in the log, and `detail` is shown to the client.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The answer to a path without a route.
    pub async fn no_such_route(uri: Uri) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {}", uri.path()),
        )
    }

    /// The answer to a method that a path does not have.
    pub fn method_not_allowed(method: &Method, uri: &Uri) -> Self {
        let detail = format!("{} does not accept {method}", uri.path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            members: self.members.iter().copied().collect(),
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let is_temporary = matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        if is_temporary {
            let seconds = self.retry_after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A request body did not arrive within its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body took longer than {0:?} to arrive")]
pub struct BodyTimeout(pub Duration);

impl BodyTimeout {
    /// The timeout in the chain of causes of an error, if there is one.
    fn in_causes_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(timeout) = error.downcast_ref() {
                return Some(timeout);
            }
            cause = error.source();
        }
        None
    }
}

static POSTGRES_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));
static REDIS_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match BodyTimeout::in_causes_of(&rejection) {
            Some(timeout) => Self::new(StatusCode::REQUEST_TIMEOUT, timeout.to_string()),
            None => Self::new(rejection.status(), rejection.body_text()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let Some(outage) = error.outage() {
            if let Some(requests) = POSTGRES_LOG.admit(1) {
                warn!(%error, requests, "Postgres does no work; requests are answered 503");
            }
            let why = outage.text();
            return Self::unavailable(format!("the database does no work ({why}); try again"));
        }
        error!(%error, "Postgres refused a query; the request is answered 500");
        Self::internal("the database refused the request")
    }
}

impl From<RedisFailure> for Problem {
    fn from(error: RedisFailure) -> Self {
        if error.is_outage() {
            if let Some(requests) = REDIS_LOG.admit(1) {
                warn!(%error, requests, "Redis does no work; requests are answered 503");
            }
            return Self::unavailable(match error.outage() {
                Some("redis_full") => "Redis is full; try again",
                Some("redis_not_persisting") => "Redis cannot save to its disk; try again",
                Some("redis_no_replicas") => "Redis has too few replicas; try again",
                _ => "Redis cannot be reached at the moment; try again",
            });
        }
        error!(%error, "Redis refused a command; the request is answered 500");
        Self::internal("Redis refused the request")
    }
}

impl From<archive::reader::ArchiveReadError> for Problem {
    fn from(error: archive::reader::ArchiveReadError) -> Self {
        match error {
            archive::reader::ArchiveReadError::Store(error) => error.into(),
            error if error.is_outage() => {
                warn!(%error, "the archive does not answer; the request is answered 503");
                Self::unavailable(format!("{error}; try again"))
            }
            error => {
                error!(%error, "an archived run is unreadable; the request is answered 500");
                Self::internal(error.to_string())
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Archive(error) => error.into(),
        }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Read(error) => error.into(),
            SearchError::TooExpensive => Self::bad_request(error.to_string()),
        }
    }
}

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            IssueError::Redis(error) => error.into(),
            IssueError::Revoked => Self::unavailable(error.to_string()),
            IssueError::Gone => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            IssueError::Random(_) | IssueError::Form(_) | IssueError::Derive(_) => {
                error!(%error, "no secret can be generated; the request is answered 500");
                Self::internal("no secret could be generated")
            }
        }
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::InvalidLength => Self::bad_request(error.to_string()),
            PasswordError::Busy => Self::unavailable(error.to_string()),
            PasswordError::Failed(_) => {
                error!(%error, "a password cannot be hashed; the request is answered 500");
                Self::internal("the password cannot be checked")
            }
        }
    }
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        match error {
            UserError::NameTaken(_) | UserError::EmailTaken(_) => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            UserError::Name(_) | UserError::Email(_) => Self::bad_request(error.to_string()),
            UserError::Role(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<RoleError> for Problem {
    fn from(error: RoleError) -> Self {
        match error {
            RoleError::Taken(_) | RoleError::BuiltIn(_) => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            RoleError::Name(_) => Self::bad_request(error.to_string()),
            RoleError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            RoleError::Store(error) => error.into(),
        }
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unauthorized(_) => Self::unauthorized(error.to_string()),
            AccessError::Forbidden(_) | AccessError::MissingScope(_) => {
                Self::forbidden(error.to_string())
            }
            AccessError::Store(error) => error.into(),
            AccessError::Redis(error) => error.into(),
        }
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        Self::too_many(denial.reason(), denial.retry_after)
    }
}

impl From<Revocation> for Problem {
    fn from(revocation: Revocation) -> Self {
        match revocation {
            Revocation::Ended => Self::unauthorized(revocation.reason()),
            Revocation::Changed => Self::forbidden(revocation.reason()),
        }
    }
}

impl From<MalformedId> for Problem {
    fn from(error: MalformedId) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<UnknownChannel> for Problem {
    fn from(error: UnknownChannel) -> Self {
        Self::bad_request(error.to_string())
    }
}
