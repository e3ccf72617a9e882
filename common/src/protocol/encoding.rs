//! The body of an entry as it travels: its event lines as they are, or packed with zstd.
//!
//! Packing takes log text to a tenth to a third of its size, so Redis holds several times more of a run
//! and a read costs less of its one thread. Small bodies stay as they are: an event that travels alone
//! is not delayed, and anybody can read it with `redis-cli`. Which of the two it is stands in the entry, as the
//! name of the field.
//!
//! Bounds: a packed body says how long it is unpacked, and is refused unread where that is more than
//! [`MAX_BODY_BYTES`].

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::get_frame_content_size;

use crate::protocol::limits::{MAX_ENTRY_BYTES, MAX_EVENT_BYTES};

/// Field of an entry whose body is its lines.
pub const PLAIN_FIELD: &str = "b";

/// Field of an entry whose body is one zstd frame that holds its lines and tells their length.
pub const ZSTD_FIELD: &str = "z";

/// Bytes from which packing pays: below, an entry costs more by its fields than by its body.
const MIN_PACKED_BYTES: usize = 4 * 1024;

/// What packing must save at least, as a divisor of the length, for a reader to unpack it.
const MIN_SAVED: usize = 8;

/// The fastest level: 500 MB/s and more on one core, where a publisher makes 100 MB/s.
const LEVEL: i32 = 1;

/// Longest body, unpacked: a batch is closed above [`MAX_ENTRY_BYTES`], by an event of any length.
pub const MAX_BODY_BYTES: usize = MAX_ENTRY_BYTES + MAX_EVENT_BYTES + 1;

thread_local! {
    /// Kept, since making one costs more than packing a body does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
}

/// The body of an entry, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// The lines.
    Plain(&'a [u8]),
    /// A zstd frame of them.
    Zstd(Vec<u8>),
}

/// A packed body that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// It would be longer than any publisher makes one.
    #[error("packed body of {0} bytes is over the limit of {MAX_BODY_BYTES} bytes")]
    TooLarge(u64),
    /// Not a zstd frame, or damaged.
    #[error("packed body cannot be unpacked: {0}")]
    Damaged(String),
}

impl<'a> Body<'a> {
    /// The lines, packed if that pays.
    #[must_use]
    pub fn packed(lines: &'a [u8]) -> Self {
        if lines.len() < MIN_PACKED_BYTES {
            return Self::Plain(lines);
        }
        let frame =
            COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(lines).ok());
        match frame {
            Some(frame) if frame.len() <= lines.len() - lines.len() / MIN_SAVED => {
                Self::Zstd(frame)
            }
            // Nothing is lost where zstd has no memory, or nothing to save.
            _ => Self::Plain(lines),
        }
    }

    /// Name of the field that holds it.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Plain(_) => PLAIN_FIELD,
            Self::Zstd(_) => ZSTD_FIELD,
        }
    }

    /// The bytes that stand in Redis.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(lines) => lines,
            Self::Zstd(frame) => frame,
        }
    }
}

/// The lines of a packed body.
///
/// # Errors
/// [`InvalidBody`]; no more than [`MAX_BODY_BYTES`] are ever allocated.
pub fn unpack(frame: &[u8]) -> Result<Bytes, InvalidBody> {
    let length = match get_frame_content_size(frame) {
        Ok(Some(length)) => length,
        Ok(None) => return Err(InvalidBody::Damaged("it does not tell its length".into())),
        Err(_) => return Err(InvalidBody::Damaged("it is no zstd frame".into())),
    };
    let most = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_BODY_BYTES);
    let most = most.ok_or(InvalidBody::TooLarge(length))?;
    let lines = zstd::bulk::decompress(frame, most);
    lines
        .map(Bytes::from)
        .map_err(|error| InvalidBody::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let lines: Vec<u8> = (0..2000)
            .flat_map(|n| format!("{{\"text\":\"line {n}\"}}\n").into_bytes())
            .collect();
        let Body::Zstd(frame) = Body::packed(&lines) else {
            panic!("text is worth packing")
        };
        assert!(
            frame.len() < lines.len() / 3,
            "{} of {}",
            frame.len(),
            lines.len()
        );
        assert_eq!(unpack(&frame), Ok(Bytes::from(lines)));
    }

    #[test]
    fn what_is_short_or_random_travels_as_it_is() {
        let short = vec![b'x'; MIN_PACKED_BYTES - 1];
        assert_eq!(Body::packed(&short), Body::Plain(&short));
        let random: Vec<u8> = std::iter::repeat_with(rand::random)
            .take(64 * 1024)
            .collect();
        assert_eq!(Body::packed(&random), Body::Plain(&random));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let huge = vec![b'x'; MAX_BODY_BYTES + 1];
        let bomb = zstd::bulk::compress(&huge, LEVEL).expect("packed");
        assert_eq!(unpack(&bomb), Err(InvalidBody::TooLarge(huge.len() as u64)));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let lines: Vec<u8> = (0..2000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let whole = zstd::bulk::compress(&lines, LEVEL).expect("packed");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            // A flip may hit a bit that means nothing, or make another text; the lines are counted later.
            if let Ok(other) = unpack(&damaged) {
                assert!(other.len() <= MAX_BODY_BYTES);
            }
            unpack(&whole[..at]).expect_err("cut off");
        }
    }
}
