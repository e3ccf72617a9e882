//! Parses an endless HTTP/1.1 response: its head, and its body with or without chunks.
//!
//! It copies nothing but the body, within its buffer, to close the space of the chunk lengths. A
//! read may end anywhere in a head or a length.

use memchr::memmem;

/// Longest head, and longest incomplete frame that is carried from one read to the next.
pub(crate) const MAX_CARRY_BYTES: usize = 512 * 1024;

/// Why a response cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// It is not HTTP, or longer than expected.
    Malformed,
    /// Another status than 200.
    Status(u16),
}

/// The position of the parser in the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseParser {
    Head,
    /// In a body that ends with its connection.
    Plain,
    /// In the length of a chunk.
    Length(usize),
    /// After a length, before the end of its line.
    AfterLength(usize),
    /// In a chunk with this many bytes left.
    Chunk(usize),
    /// After a chunk, before its line end.
    AfterChunk,
    /// After the last chunk.
    Over,
}

impl ResponseParser {
    /// Searches for the end of the head in `bytes`; returns the offset of the body if it is there.
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

    /// Compacts the body in `from..to`; returns its new end.
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

    /// Parses one byte between chunks.
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
