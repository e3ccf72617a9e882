//! Decodes compressed bodies while they are sent.
//!
//! A body of some kilobytes may ask for a window of gigabytes (zstd) and become gigabytes of text.
//! The window is bounded by [`MAX_WINDOW_LOG`], as RFC 9659 has it for HTTP, and what is decoded by
//! [`MAX_BODY_BYTES`](super::body::MAX_BODY_BYTES). It is decoded as fast as it is stored, a piece
//! of [`PIECE_BYTES`] at a time.

use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::problem::Problem;

/// Largest window of zstd: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;

/// What is decoded at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The pieces of a decoded body.
pub(super) type Pieces = BoxStream<'static, io::Result<Bytes>>;

impl Encoding {
    /// The encoding that the headers name; 415 for any other.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let named = headers.get(header::CONTENT_ENCODING);
        let named = named.map_or("identity", |value| value.to_str().unwrap_or("?"));
        match named.trim().to_ascii_lowercase().as_str() {
            "identity" | "" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Encoding: gzip and zstd are possible, one of them",
            )),
        }
    }

    /// Memory that a decoder takes at most.
    pub(super) const fn decoder_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip => 128 * 1024,
            Self::Zstd => (1 << MAX_WINDOW_LOG) + 512 * 1024,
        }
    }

    /// The decoded pieces of a body. Several members or frames in a row are one body.
    pub(super) fn decode(self, body: Body) -> Pieces {
        let data: BodyDataStream = body.into_data_stream();
        if self == Self::Identity {
            return data.map_err(io::Error::other).boxed();
        }
        let reader = StreamReader::new(data.map_err(io::Error::other));
        match self {
            Self::Zstd => {
                let window = [DParameter::window_log_max(MAX_WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(reader, &window);
                decoder.multiple_members(true);
                ReaderStream::with_capacity(decoder, PIECE_BYTES).boxed()
            }
            _ => {
                let mut decoder = GzipDecoder::new(reader);
                decoder.multiple_members(true);
                ReaderStream::with_capacity(decoder, PIECE_BYTES).boxed()
            }
        }
    }

    /// What to say about a body that cannot be decoded.
    pub(super) fn broken(self, error: &io::Error) -> String {
        match self {
            Self::Identity => format!("the body broke off: {error}"),
            Self::Gzip => format!("the body broke off, or is not gzip: {error}"),
            Self::Zstd => format!(
                "the body broke off, is not zstd, or needs a window over {} MiB (send it without \
                 --long): {error}",
                (1 << MAX_WINDOW_LOG) / (1024 * 1024)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_named_by_their_header() {
        let of = |name: &'static str| {
            let mut headers = HeaderMap::new();
            let value = axum::http::HeaderValue::from_static(name);
            headers.insert(header::CONTENT_ENCODING, value);
            Encoding::of(&headers).ok()
        };
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!(of("GZIP"), Some(Encoding::Gzip));
        assert_eq!(of(" zstd"), Some(Encoding::Zstd));
        assert_eq!((of("br"), of("gzip, zstd")), (None, None));
    }
}
