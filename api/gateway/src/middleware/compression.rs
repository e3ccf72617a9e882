//! Compression of history with gzip or zstd, where the client accepts it. Routes opt in.
//!
//! Answers that are still being written (`no-transform`) are never compressed: a compressor holds
//! bytes back, and a proxy that sees a compressed stream may hold back more.

use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header};
use tower_http::compression::predicate::{And, Predicate as _};
use tower_http::compression::{CompressionLayer, DefaultPredicate};

type IsCompressible = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses answers that are complete.
pub(crate) fn compression() -> CompressionLayer<And<DefaultPredicate, IsCompressible>> {
    let predicate = DefaultPredicate::new().and(is_compressible as IsCompressible);
    CompressionLayer::new().compress_when(predicate)
}

fn is_compressible(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let control = headers.get(header::CACHE_CONTROL).map(HeaderValue::to_str);
    !matches!(control, Some(Ok(text)) if text.contains("no-transform"))
}
