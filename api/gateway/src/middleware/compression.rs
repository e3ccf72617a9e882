//! Compression of history, where a client takes it: gzip and zstd.
//!
//! Never of what is still being written (`no-transform`): a compressor holds bytes back, and a proxy
//! that sees a compressed stream may hold back more.

use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header};
use tower_http::compression::predicate::{And, Predicate as _};
use tower_http::compression::{CompressionLayer, DefaultPredicate};

type MayBePacked = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses answers that may be.
pub(crate) fn compression() -> CompressionLayer<And<DefaultPredicate, MayBePacked>> {
    CompressionLayer::new().compress_when(DefaultPredicate::new().and(may_be_packed as MayBePacked))
}

fn may_be_packed(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let control = headers.get(header::CACHE_CONTROL).map(HeaderValue::to_str);
    !matches!(control, Some(Ok(text)) if text.contains("no-transform"))
}
