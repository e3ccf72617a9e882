//! Entity tags, and whether a client names one (RFC 9110, 8.8.3).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of a digest that tell contents apart.
const TAG_BYTES: usize = 12;

/// The strong tag of the content with this digest.
pub(crate) fn of(digest: &[u8]) -> HeaderValue {
    let digits = digest
        .iter()
        .take(TAG_BYTES)
        .map(|byte| format!("{byte:02x}"));
    let text = format!("\"{}\"", digits.collect::<String>());
    // Hexadecimal digits between quotes are always a valid value.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Whether the header names the tag. The comparison is weak, as for caches.
pub(crate) fn names(headers: &HeaderMap, name: &HeaderName, tag: &HeaderValue) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one.as_bytes() == tag.as_bytes())
}
