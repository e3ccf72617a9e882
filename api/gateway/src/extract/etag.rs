//! Tags of contents, and whether a client names one (RFC 9110, 8.8.3).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The strong tag of what has this digest; twelve bytes of it tell contents apart.
pub(crate) fn of(digest: &[u8]) -> HeaderValue {
    let digits = digest.iter().take(12).map(|byte| format!("{byte:02x}"));
    let text = format!("\"{}\"", digits.collect::<String>());
    // Hexadecimal digits between quotes.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// True if the header names the tag; whether weakly is of no matter for a comparison with a cache.
pub(crate) fn names(headers: &HeaderMap, name: &HeaderName, tag: &HeaderValue) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one.as_bytes() == tag.as_bytes())
}
