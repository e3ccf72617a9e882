//! The encoding of an entry's body: plain event lines, or the same lines compressed with zstd.
//!
//! Compression reduces log text to between a tenth and a third of its size, so Redis holds several
//! times more of a run, and a read takes less of its single thread. Small bodies stay plain: an
//! event that travels alone is not delayed, and `redis-cli` can show it. The field name in the
//! entry tells the two encodings apart.
//!
//! Bounds: a compressed body states its decompressed length. A body longer than [`MAX_BODY_BYTES`]
//! is rejected before it is decompressed.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::get_frame_content_size;

use crate::protocol::limits::{MAX_ENTRY_BYTES, MAX_EVENT_BYTES};

/// Field name of a plain body.
pub const PLAIN_FIELD: &str = "b";

/// Field name of a compressed body: one zstd frame that states the length of its content.
pub const ZSTD_FIELD: &str = "z";

/// Smallest body worth compressing: in a smaller entry the fields cost more than the body.
const MIN_COMPRESSED_BYTES: usize = 4 * 1024;

/// Compression must save at least 1 / this of the length, to be worth decompressing.
const MIN_SAVED_DIVISOR: usize = 8;

/// The fastest level: at least 500 MB/s on one core, where a publisher produces 100 MB/s.
const ZSTD_LEVEL: i32 = 1;

/// Longest body after decompression: a batch is closed above [`MAX_ENTRY_BYTES`], by an event of
/// any length.
pub const MAX_BODY_BYTES: usize = MAX_ENTRY_BYTES + MAX_EVENT_BYTES + 1;

thread_local! {
    /// Reused, because creating a compressor costs more than compressing a body.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
}

/// The encoded body of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// The event lines.
    Plain(&'a [u8]),
    /// A zstd frame of the event lines.
    Zstd(Cow<'a, [u8]>),
}

/// A compressed body that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// Longer than any publisher sends.
    #[error("compressed body of {0} bytes is over the limit of {MAX_BODY_BYTES} bytes")]
    TooLarge(u64),
    /// Not a zstd frame, or a damaged one.
    #[error("compressed body cannot be decompressed: {0}")]
    Damaged(String),
}

impl<'a> Body<'a> {
    /// Encodes event lines, compressed if that saves enough.
    #[must_use]
    pub fn compress(lines: &'a [u8]) -> Self {
        if lines.len() < MIN_COMPRESSED_BYTES {
            return Self::Plain(lines);
        }
        let frame =
            COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(lines).ok());
        match frame {
            Some(frame) if frame.len() <= lines.len() - lines.len() / MIN_SAVED_DIVISOR => {
                Self::Zstd(frame.into())
            }
            // Too little is saved, or zstd could not allocate memory.
            _ => Self::Plain(lines),
        }
    }

    /// Name of the field in the entry.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Plain(_) => PLAIN_FIELD,
            Self::Zstd(_) => ZSTD_FIELD,
        }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(lines) => lines,
            Self::Zstd(frame) => frame,
        }
    }
}

/// Decompresses a body into event lines. Allocates at most [`MAX_BODY_BYTES`].
pub(crate) fn decompress(frame: &[u8]) -> Result<Bytes, InvalidBody> {
    let length = match get_frame_content_size(frame) {
        Ok(Some(length)) => length,
        Ok(None) => return Err(InvalidBody::Damaged("it does not state its length".into())),
        Err(_) => return Err(InvalidBody::Damaged("it is not a zstd frame".into())),
    };
    let capacity = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_BODY_BYTES);
    let capacity = capacity.ok_or(InvalidBody::TooLarge(length))?;
    let lines = zstd::bulk::decompress(frame, capacity);
    lines
        .map(Bytes::from)
        .map_err(|error| InvalidBody::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_body_round_trips() {
        let lines: Vec<u8> = (0..2000)
            .flat_map(|n| format!("{{\"text\":\"line {n}\"}}\n").into_bytes())
            .collect();
        let Body::Zstd(frame) = Body::compress(&lines) else {
            panic!("text is worth compressing")
        };
        assert!(
            frame.len() < lines.len() / 3,
            "{} of {}",
            frame.len(),
            lines.len()
        );
        assert_eq!(decompress(&frame), Ok(Bytes::from(lines)));
    }

    #[test]
    fn short_and_random_bodies_stay_plain() {
        let short = vec![b'x'; MIN_COMPRESSED_BYTES - 1];
        assert_eq!(Body::compress(&short), Body::Plain(&short));
        let random: Vec<u8> = std::iter::repeat_with(rand::random)
            .take(64 * 1024)
            .collect();
        assert_eq!(Body::compress(&random), Body::Plain(&random));
    }

    #[test]
    fn decompression_bomb_is_rejected_by_its_stated_length() {
        let huge = vec![b'x'; MAX_BODY_BYTES + 1];
        let bomb = zstd::bulk::compress(&huge, ZSTD_LEVEL).expect("compressed");
        assert_eq!(
            decompress(&bomb),
            Err(InvalidBody::TooLarge(huge.len() as u64))
        );
    }

    #[test]
    fn damaged_body_is_an_error_and_never_a_panic() {
        let lines: Vec<u8> = (0..2000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let whole = zstd::bulk::compress(&lines, ZSTD_LEVEL).expect("compressed");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            // A flipped bit may be unused, or give another text; the entry parser counts the lines.
            if let Ok(other) = decompress(&damaged) {
                assert!(other.len() <= MAX_BODY_BYTES);
            }
            decompress(&whole[..at]).expect_err("cut off");
        }
    }
}
