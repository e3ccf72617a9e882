//! Which of its formats a client wants.

use axum::http::{HeaderMap, header};

/// The content type of one JSON document a line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Whether the client asks for one JSON document a line.
pub(crate) fn wants_ndjson(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(NDJSON))
}
