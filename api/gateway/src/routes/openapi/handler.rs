//! `/openapi.json`: the document, as it is sent.
//!
//! It does not change while the program runs: it is built at start, and has an `ETag`.

use axum::Extension;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::etag;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// The text of the document, and its tag.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    pub(crate) fn new(document: &Value) -> Self {
        let text = document.to_string();
        let digest = Sha256::digest(text.as_bytes());
        Self {
            tag: etag::of(&digest),
            text: text.into(),
        }
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 304, description = "It is the one that `If-None-Match` names"),
    ),
    security(()),
    extensions(("x-rate-class" = json!("read")))
)]
async fn openapi(Extension(document): Extension<Document>, headers: HeaderMap) -> Response {
    let common = [
        (header::ETAG, document.tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if etag::names(&headers, &header::IF_NONE_MATCH, &document.tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (common, kind, document.text).into_response()
}
