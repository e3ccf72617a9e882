//! The bytes of one HTTP/1.1 answer that never ends: its head, and its body with or without chunks.
//!
//! Nothing is copied but the body towards the front of the buffer that it was read into, over the lengths of its
//! chunks; a head or a length may be cut anywhere between two reads.

use memchr::memmem;

/// Longest head, and longest piece of a frame that is carried from one read to the next.
pub(crate) const MAX_CARRY_BYTES: usize = 512 * 1024;

/// What stands in the way of reading on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// It is no HTTP, or longer than anything that is expected.
    Malformed,
    /// Another status than 200.
    Status(u16),
}

/// Where in an answer a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseParser {
    Head,
    /// A body that ends with its connection.
    Plain,
    /// In the length of a chunk.
    Length(usize),
    /// Behind a length, before its line ends.
    AfterLength(usize),
    /// In a chunk, with so many bytes to come.
    Chunk(usize),
    /// Behind a chunk, before its line ends.
    AfterChunk,
    /// The server has said that this was all.
    Over,
}

impl ResponseParser {
    /// Looks for the end of the head in `bytes`; gives where the body begins, if it is there.
    pub(crate) fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ResponseError> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() < MAX_CARRY_BYTES {
                Ok(None)
            } else {
                Err(ResponseError::Malformed)
            };
        };
        let head =
            std::str::from_utf8(&bytes[..end]).map_err(|_not_text| ResponseError::Malformed)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        match status.and_then(|status| status.parse().ok()) {
            Some(200) => {}
            Some(other) => return Err(ResponseError::Status(other)),
            None => return Err(ResponseError::Malformed),
        }
        let chunked = lines.any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with("transfer-encoding:") && line.ends_with("chunked")
        });
        *self = if chunked {
            Self::Length(0)
        } else {
            Self::Plain
        };
        Ok(Some(end + 4))
    }

    /// Moves the body in `from..to` together; gives where it ends now.
    pub(crate) fn body(
        &mut self,
        buffer: &mut [u8],
        from: usize,
        to: usize,
    ) -> Result<usize, ResponseError> {
        if *self == Self::Plain {
            return Ok(to);
        }
        let (mut at, mut end) = (from, from);
        while at < to && *self != Self::Over {
            let Self::Chunk(left) = *self else {
                *self = self.step(buffer[at])?;
                at += 1;
                continue;
            };
            let piece = left.min(to - at);
            if at > end {
                buffer.copy_within(at..at + piece, end);
            }
            (at, end) = (at + piece, end + piece);
            *self = if left > piece {
                Self::Chunk(left - piece)
            } else {
                Self::AfterChunk
            };
        }
        Ok(end)
    }

    /// One byte between chunks.
    fn step(self, byte: u8) -> Result<Self, ResponseError> {
        match (self, byte) {
            (Self::Length(length), _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0) as usize;
                let length = length
                    .checked_mul(16)
                    .and_then(|sum| sum.checked_add(digit));
                length.map(Self::Length).ok_or(ResponseError::Malformed)
            }
            (Self::Length(length) | Self::AfterLength(length), b'\n') => match length {
                0 => Ok(Self::Over),
                _ => Ok(Self::Chunk(length)),
            },
            (Self::Length(length) | Self::AfterLength(length), _) => Ok(Self::AfterLength(length)),
            (Self::AfterChunk, b'\r') => Ok(self),
            (Self::AfterChunk, b'\n') => Ok(Self::Length(0)),
            _ => Err(ResponseError::Malformed),
        }
    }
}
