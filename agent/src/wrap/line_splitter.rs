//! Cuts output into chunks that become events: at line ends, at [`MAX_CHUNK_BYTES`], and wherever
//! the process paused.
//!
//! A chunk includes its newline; carriage returns are ordinary bytes. If a chunk ends without a
//! newline, an incomplete character at its end is held back, so that reading in pieces never turns
//! text into base64: at most 3 bytes, until the rest arrives or the stream ends.
//!
//! Data: one buffer of what is not cut yet, bounded by one read and one chunk.

use runcast_common::protocol::limits::MAX_CHUNK_BYTES;
use runcast_publisher::queue::{chunk_length, incomplete_tail};

/// Output that is not cut yet.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    buffer: Vec<u8>,
    /// Where that starts in the buffer.
    start: usize,
    /// There is no newline between `start` and here.
    searched: usize,
}

impl LineSplitter {
    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete line, or the next piece of a line that is too long for a chunk.
    pub(crate) fn next_line(&mut self) -> Option<&[u8]> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let end = found.map(|at| self.searched + at + 1);
        self.searched = end.unwrap_or(self.buffer.len());
        let ready = &self.buffer[self.start..self.searched];
        if end.is_none() && ready.len() <= MAX_CHUNK_BYTES {
            return None;
        }
        Some(self.cut(chunk_length(ready)))
    }

    /// An unfinished line, without an incomplete character. Call it once
    /// [`next_line`](Self::next_line) returns none.
    pub(crate) fn partial(&mut self) -> Option<&[u8]> {
        let rest = &self.buffer[self.start..];
        let length = rest.len() - incomplete_tail(rest);
        (length > 0).then(|| self.cut(length))
    }

    /// Everything that is left, at the end of the stream.
    pub(crate) fn rest(&mut self) -> Option<&[u8]> {
        let length = self.buffer.len() - self.start;
        (length > 0).then(|| self.cut(length))
    }

    /// Whether [`partial`](Self::partial) would return something.
    pub(crate) fn has_partial(&self) -> bool {
        let rest = &self.buffer[self.start..];
        rest.len() > incomplete_tail(rest)
    }

    fn cut(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start += length;
        // A cut within a long line leaves bytes that were searched; search them again.
        self.searched = self.start;
        &self.buffer[from..self.start]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &mut LineSplitter, bytes: &[u8]) -> Vec<Vec<u8>> {
        lines.push(bytes);
        std::iter::from_fn(|| lines.next_line().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_line_keeps_its_newline_and_its_carriage_returns() {
        let mut split = LineSplitter::default();
        assert_eq!(
            lines(&mut split, b"a\r\n10%\r20%\r\n\nrest"),
            [&b"a\r\n"[..], b"10%\r20%\r\n", b"\n"]
        );
        assert!(split.has_partial());
        assert_eq!(split.partial(), Some(&b"rest"[..]));
        assert_eq!(split.partial(), None);
        assert_eq!(split.rest(), None);
        assert_eq!(lines(&mut split, b" of it\n"), [b" of it\n"]);
    }

    #[test]
    fn lines_do_not_depend_on_how_reads_are_cut() {
        let text = "héllo\r\n😀\n\n€uro\nend".as_bytes();
        for cut in 0..=text.len() {
            let mut split = LineSplitter::default();
            let mut all = lines(&mut split, &text[..cut]);
            all.extend(lines(&mut split, &text[cut..]));
            all.extend(split.rest().map(<[u8]>::to_vec));
            let expected = ["héllo\r\n", "😀\n", "\n", "€uro\n", "end"];
            assert_eq!(all, expected.map(|line| line.as_bytes().to_vec()));
        }
    }

    #[test]
    fn a_character_split_over_two_flushes_stays_text() {
        let text = "a😀b€".as_bytes();
        for cut in 0..=text.len() {
            let mut split = LineSplitter::default();
            let mut all = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                assert!(lines(&mut split, part).is_empty());
                if let Some(chunk) = split.partial() {
                    all.push(std::str::from_utf8(chunk).expect("text").to_owned());
                }
            }
            assert_eq!(all.concat().as_bytes(), text);
            assert!(!split.has_partial());
            assert_eq!(split.rest(), None);
        }
    }

    #[test]
    fn an_incomplete_character_is_released_at_the_end() {
        let mut split = LineSplitter::default();
        assert!(lines(&mut split, b"a\xf0\x9f").is_empty());
        assert_eq!(split.partial(), Some(&b"a"[..]));
        assert!(!split.has_partial());
        assert_eq!(split.partial(), None);
        assert_eq!(split.rest(), Some(&b"\xf0\x9f"[..]));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = format!("x{}\nnext\n", "é".repeat(MAX_CHUNK_BYTES));
        for size in [1000, 64 * 1024] {
            let mut split = LineSplitter::default();
            let mut all = Vec::new();
            for part in long.as_bytes().chunks(size) {
                all.extend(lines(&mut split, part));
            }
            assert_eq!(all.concat(), long.as_bytes());
            assert_eq!(all.len(), 4);
            for chunk in &all {
                assert!(chunk.len() <= MAX_CHUNK_BYTES);
                std::str::from_utf8(chunk).expect("text");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_cut_at_the_limit() {
        let mut split = LineSplitter::default();
        let chunks = lines(&mut split, &vec![0x80; MAX_CHUNK_BYTES + 1]);
        assert_eq!(chunks, [vec![0x80; MAX_CHUNK_BYTES]]);
        assert_eq!(split.rest(), Some(&[0x80][..]));
    }
}
