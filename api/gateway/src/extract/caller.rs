//! The principal that a request was authenticated as.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use runcast_access::principal::Principal;
use tracing::error;

use crate::problem::Problem;

/// The principal that [authorization](crate::middleware::authorize) has admitted.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            error!(
                path = parts.uri.path(),
                "a public route asks for the caller; give it a `security` that requires a credential"
            );
            Problem::internal("this route needs an authenticated caller, but is public")
        })
    }
}
