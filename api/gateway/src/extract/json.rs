//! JSON bodies: one object with known fields.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A body that is one JSON object. A list is refused, although serde would read a struct from it.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await?;
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::bad_request("expected a JSON object as the body"));
        }
        match serde_json::from_slice(&body) {
            Ok(object) => Ok(Self(object)),
            Err(error) => Err(Problem::bad_request(format!(
                "the body is malformed: {error}"
            ))),
        }
    }
}
