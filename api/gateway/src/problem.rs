//! Errors as RFC 9457 problem documents: what went wrong, with what, and the way out.

use std::collections::BTreeMap;
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

use super::middleware::request_limits::BodyTimeout;
use runcast_access::AccessError;
use runcast_access::open_streams::Revocation;
use runcast_access::password::PasswordError;
use runcast_access::rate_limit::Denial;
use runcast_access::secret::IssueError;
use runcast_history::archive;
use runcast_history::reader::ReadError;
use runcast_store::StoreError;
use runcast_store::roles::RoleError;
use runcast_store::users::UserError;

/// When to try again if nobody knows better.
const SOON: Duration = Duration::from_secs(2);

/// An answer that says why there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Figures for programs, beside the words for people.
    members: Vec<(&'static str, u64)>,
    retry_after: Duration,
}

/// What went wrong, as RFC 9457 has it. Some problems have further members: figures for programs.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The status.
    status: u16,
    /// What exactly is wrong, and the way out, for people.
    detail: &'a str,
    #[serde(flatten)]
    #[schema(ignore)]
    members: BTreeMap<&'static str, u64>,
}

impl Problem {
    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// A problem with this status; `detail` is shown to whoever asked.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            members: Vec::new(),
            retry_after: SOON,
        }
    }

    /// Says when to try again, where the status lets one.
    #[must_use]
    pub const fn after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// Adds a figure for programs.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u64) -> Self {
        self.members.push((name, value));
        self
    }

    /// 400: what was sent makes no sense.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: nobody known.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: known, but not allowed.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: no such run.
    #[must_use]
    pub fn no_such_run(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no run {id}"))
    }

    /// 429: too much of something, until later.
    #[must_use]
    pub fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail).after(retry_after)
    }

    /// 503: a part that is needed does not answer; try again.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// The answer to a path that does not exist.
    pub async fn no_such_route(uri: Uri) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {}", uri.path()),
        )
    }

    /// The answer to a method that a path does not take.
    #[must_use]
    pub fn wrong_method(method: &Method, uri: &Uri) -> Self {
        let detail = format!("{} does not take {method}", uri.path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
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
        let later = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if later.contains(&self.status) {
            let seconds = self.retry_after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(failure: StoreError) -> Self {
        if failure.is_outage() {
            warn!(error = %failure, "a request needs Postgres and it does not answer");
            return Self::unavailable("the database cannot be reached at the moment; try again");
        }
        error!(error = %failure, "a request failed in the database");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the database refused the request",
        )
    }
}

impl From<archive::reader::ReadError> for Problem {
    fn from(failure: archive::reader::ReadError) -> Self {
        match failure {
            archive::reader::ReadError::Store(failure) => failure.into(),
            failure if failure.is_outage() => {
                warn!(error = %failure, "a request needs the archive and it does not answer");
                Self::unavailable(format!("{failure}; try again"))
            }
            failure => {
                error!(error = %failure, "an archived run cannot be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string())
            }
        }
    }
}

impl From<RedisFailure> for Problem {
    fn from(failure: RedisFailure) -> Self {
        if failure.is_outage() {
            warn!(error = %failure, "a request needs Redis and it does not answer");
            return Self::unavailable("Redis cannot be reached at the moment; try again");
        }
        error!(error = %failure, "a request failed in Redis");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Redis refused the request",
        )
    }
}

impl From<ReadError> for Problem {
    fn from(failure: ReadError) -> Self {
        match failure {
            ReadError::Store(failure) => failure.into(),
            ReadError::Archive(failure) => failure.into(),
            ReadError::NotEntries(failure) => {
                error!(error = %failure, "a run cannot be read");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Redis answered in a form that this version does not understand",
                )
            }
        }
    }
}

impl From<IssueError> for Problem {
    fn from(failure: IssueError) -> Self {
        match failure {
            IssueError::Store(failure) => failure.into(),
            IssueError::Redis(failure) => failure.into(),
            IssueError::Random(_) | IssueError::Form(_) => {
                error!(error = %failure, "no secret could be made");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "no secret could be made")
            }
        }
    }
}

impl From<PasswordError> for Problem {
    fn from(failure: PasswordError) -> Self {
        match failure {
            PasswordError::Unfit => Self::bad_request(failure.to_string()),
            PasswordError::Busy => Self::unavailable(failure.to_string()),
            PasswordError::Failed(_) => {
                error!(error = %failure, "a password cannot be worked on");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the password cannot be checked",
                )
            }
        }
    }
}

impl From<UserError> for Problem {
    fn from(failure: UserError) -> Self {
        match failure {
            UserError::NameTaken(_) | UserError::EmailTaken(_) => {
                Self::new(StatusCode::CONFLICT, failure.to_string())
            }
            UserError::Name(_) | UserError::Email(_) => Self::bad_request(failure.to_string()),
            UserError::Role(_) => Self::new(StatusCode::NOT_FOUND, failure.to_string()),
            UserError::Store(failure) => failure.into(),
        }
    }
}

impl From<RoleError> for Problem {
    fn from(failure: RoleError) -> Self {
        match failure {
            RoleError::Taken(_) | RoleError::BuiltIn(_) => {
                Self::new(StatusCode::CONFLICT, failure.to_string())
            }
            RoleError::Name(_) => Self::bad_request(failure.to_string()),
            RoleError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, failure.to_string()),
            RoleError::Store(failure) => failure.into(),
        }
    }
}

impl From<AccessError> for Problem {
    fn from(failure: AccessError) -> Self {
        match failure {
            AccessError::Unauthorized(_) => Self::unauthorized(failure.to_string()),
            AccessError::Forbidden(_) | AccessError::MissingScope(_) => {
                Self::forbidden(failure.to_string())
            }
            AccessError::Store(failure) => failure.into(),
            AccessError::Redis(failure) => failure.into(),
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
            Revocation::Over => Self::unauthorized(revocation.reason()),
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

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if let Some(late) = BodyTimeout::behind(&rejection) {
            return Self::new(StatusCode::REQUEST_TIMEOUT, late.to_string());
        }
        Self::new(rejection.status(), rejection.body_text())
    }
}
