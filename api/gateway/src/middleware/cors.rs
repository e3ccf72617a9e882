//! CORS: pages of other origins may call the API only if `RUNCAST_CORS_ORIGINS` lists them.
//!
//! They send a token or, for an `EventSource`, a ticket. The session cookie stays with the
//! gateway's own page: the answers do not allow credentials.

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::CorsLayer;

pub use crate::origins::Origins;

/// How long a browser may cache the answer to a preflight request.
const PREFLIGHT_CACHE: Duration = Duration::from_secs(3600);

/// Answers preflight requests, and allows these origins to read answers.
pub(crate) fn cors(origins: &Origins) -> CorsLayer {
    let name = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(origins.values().to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CACHE_CONTROL,
            name("idempotency-key"),
            name("last-event-id"),
            name("producer-id"),
            name("producer-epoch"),
            name("producer-seq"),
        ])
        .expose_headers([
            header::CONTENT_RANGE,
            header::ETAG,
            header::RETRY_AFTER,
            name("ratelimit"),
            name("ratelimit-policy"),
        ])
        .max_age(PREFLIGHT_CACHE)
}
