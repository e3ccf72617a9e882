//! Secrets that are recognized by their format: tokens with a prefix of their own, and private
//! keys.
//!
//! A token is its prefix and at least a certain number of certain characters; all such characters
//! that follow belong to it. It ends with its line: text behind a line end cannot be distinguished
//! from the text of the next line. The formats are in [`super::token_table`]. The automaton of the
//! values also matches the prefixes ([`super::automaton`]); this module checks what follows them,
//! byte by byte.
//!
//! A private key is the text between the `BEGIN` line, which stays readable, and the end of the
//! `END` line, in characters that occur in key blocks, at most [`MAX_KEY_BYTES`].
//!
//! Bounds: text that is not a complete token after [`MAX_OPEN_BYTES`] is ordinary text.

use super::token_table::TokenFormat;

/// Bytes after which a prefix without the rest of its format is ordinary text: longer than the
/// header and claims of a usual JSON web token, whose second dot follows them.
pub(super) const MAX_OPEN_BYTES: u16 = 2048;

/// Longest key block: RSA with 16,384 bits takes 12.5 KiB in PEM.
pub(super) const MAX_KEY_BYTES: u16 = 16 * 1024;

/// Length of a word in a key block after which a space may replace the line end, as shells do.
/// Lines of key blocks have 64 or more characters, words of prose never.
const MIN_KEY_LINE_BYTES: u16 = 40;

/// Whether the text ends within a word, so that a prefix behind it does not begin a token. Escapes
/// of a character, and colours that were written as text, end a word: `%3D`, `\\u0022`, `\\n`,
/// `\\u001b[32m`.
pub(super) fn is_word_before(text: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_escape = |marks: &[u8], digits: usize| {
        let start = text.len().checked_sub(digits + marks.len());
        start.is_some_and(|start| {
            let (mark, number) = text[start..].split_at(marks.len());
            mark == marks && number.iter().all(u8::is_ascii_hexdigit)
        })
    };
    let is_style = || {
        let parameters = text.strip_suffix(b"m").unwrap_or_default();
        let start = parameters
            .iter()
            .rposition(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'));
        start.is_some_and(|start| parameters[start] == b'[')
    };
    text.last().is_some_and(is_word)
        && !matches!(text, [.., b'\\', b'n' | b't' | b'r'])
        && !is_escape(b"%", 2)
        && !is_escape(b"\\x", 2)
        && !is_escape(b"\\u", 4)
        && !is_style()
}

/// The first lines of private keys.
pub(super) const KEY_BEGINS: [&str; 8] = [
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----BEGIN DSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN ANY PRIVATE KEY-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
];

/// How the last line of a key starts.
pub(super) const KEY_END: &str = "-----END";

/// What a byte means for an open token or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteStep {
    /// The text may still become a secret.
    Open,
    /// The text is a secret, and the byte belongs to it.
    Inside,
    /// The text is not a secret, or the secret ended before the byte.
    Outside,
}

/// A prefix that was found, and the characters behind it so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OpenToken {
    /// Position in the stream from which on the token is not masked yet.
    pub(super) start: u64,
    format: &'static TokenFormat,
    pub(super) length: u16,
    dots: u16,
    has_digit: bool,
    pub(super) is_complete: bool,
}

impl OpenToken {
    pub(super) const fn new(start: u64, format: &'static TokenFormat) -> Self {
        Self {
            start,
            format,
            length: 0,
            dots: 0,
            has_digit: false,
            is_complete: false,
        }
    }

    pub(super) fn is_of(&self, format: &TokenFormat) -> bool {
        self.format.prefix == format.prefix
    }

    const fn may_be_first_dot(&self) -> bool {
        match self.format.first_dot {
            Some(length) => self.length == length,
            None => true,
        }
    }

    pub(super) const fn next(&mut self, byte: u8) -> ByteStep {
        if !self.format.class.contains(byte) {
            return ByteStep::Outside;
        }
        if self.is_complete {
            return ByteStep::Inside;
        }
        if byte == b'.' && self.dots == 0 && !self.may_be_first_dot() {
            return ByteStep::Outside;
        }
        self.length += 1;
        self.dots += (byte == b'.') as u16;
        self.has_digit |= byte.is_ascii_digit();
        self.is_complete = self.length >= self.format.min_length
            && self.dots >= self.format.min_dots
            && (self.has_digit || !self.format.is_ambiguous);
        match self.is_complete {
            true => ByteStep::Inside,
            false if self.length > MAX_OPEN_BYTES => ByteStep::Outside,
            false => ByteStep::Open,
        }
    }
}

/// A private key whose `BEGIN` line was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OpenKey {
    length: u16,
    word: u16,
    last: u8,
    dashes: u8,
    /// Whether the `END` line has started.
    pub(super) is_ending: bool,
    is_over: bool,
}

impl OpenKey {
    pub(super) fn next(&mut self, byte: u8) -> ByteStep {
        if self.is_over || self.length >= MAX_KEY_BYTES {
            return ByteStep::Outside;
        }
        let belongs = match byte {
            b' ' => {
                self.is_ending
                    || self.word >= MIN_KEY_LINE_BYTES
                    || matches!(self.last, b'\n' | b' ' | b':' | b',')
            }
            // Keys within JSON contain backslashes.
            b'+' | b'/' | b'=' | b':' | b',' | b'-' | b'\\' | b'\r' | b'\n' | b'\t' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if !belongs {
            return ByteStep::Outside;
        }
        self.length += 1;
        self.word = match byte.is_ascii_whitespace() {
            true => 0,
            false => self.word + 1,
        };
        self.dashes = match byte {
            b'-' => self.dashes.saturating_add(1),
            _ => 0,
        };
        self.is_over = self.is_ending && self.dashes == 5;
        self.last = byte;
        ByteStep::Inside
    }
}
