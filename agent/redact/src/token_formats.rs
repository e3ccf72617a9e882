//! Secrets that are recognized by their format: tokens with a prefix of their own, and private
//! keys.
//!
//! A token is its prefix and at least a certain number of certain characters; all such characters
//! that follow belong to it. It ends with its line: text behind a line end cannot be distinguished
//! from the text of the next line. The automaton of the values also matches the prefixes
//! ([`super::automaton`]); this module checks what follows them, byte by byte.
//!
//! A private key is the text between the `BEGIN` line, which stays readable, and the end of the
//! `END` line, in characters that occur in key blocks, at most [`MAX_KEY_BYTES`].
//!
//! Bounds: text that is not a complete token after [`MAX_OPEN_BYTES`] is ordinary text.

/// Bytes after which a prefix without the rest of its format is ordinary text: longer than the
/// header and claims of a usual JSON web token, whose second dot follows them.
pub(super) const MAX_OPEN_BYTES: u16 = 2048;

/// Longest key block: RSA with 16,384 bits takes 12.5 KiB in PEM.
pub(super) const MAX_KEY_BYTES: u16 = 16 * 1024;

/// Length of a word in a key block after which a space may replace the line end, as shells do.
/// Lines of key blocks have 64 or more characters, words of prose never.
const MIN_KEY_LINE_BYTES: u16 = 40;

/// The characters of a token.
#[derive(Debug, Clone, Copy)]
enum CharClass {
    Alphanumeric,
    Upper,
    /// Alphanumeric, `-` and `_`.
    Url,
    /// Alphanumeric, `-`, `_` and `.`.
    Dotted,
}

impl CharClass {
    const fn contains(self, byte: u8) -> bool {
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        }
    }
}

/// The format of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenFormat {
    pub(super) prefix: &'static str,
    class: CharClass,
    /// Least number of characters behind the prefix.
    min_length: u16,
    min_dots: u16,
    /// Whether words end like the prefix (`task-`): it must not follow a letter, and one character
    /// must be a digit.
    pub(super) is_ambiguous: bool,
}

const fn format(prefix: &'static str, class: CharClass, min_length: u16) -> TokenFormat {
    TokenFormat {
        prefix,
        class,
        min_length,
        min_dots: 0,
        is_ambiguous: false,
    }
}

/// All formats: AWS, GitHub, GitLab, Slack, Google, Stripe, npm, PyPI, OpenAI and Anthropic,
/// JSON web tokens, Runcast.
pub(super) const TOKEN_FORMATS: [TokenFormat; 26] = [
    format("AKIA", CharClass::Upper, 16),
    format("ASIA", CharClass::Upper, 16),
    format("ghp_", CharClass::Alphanumeric, 36),
    format("gho_", CharClass::Alphanumeric, 36),
    format("ghu_", CharClass::Alphanumeric, 36),
    format("ghs_", CharClass::Alphanumeric, 36),
    format("ghr_", CharClass::Alphanumeric, 36),
    format("github_pat_", CharClass::Url, 40),
    format("glpat-", CharClass::Url, 20),
    format("xoxa-", CharClass::Url, 16),
    format("xoxb-", CharClass::Url, 16),
    format("xoxe-", CharClass::Url, 16),
    format("xoxp-", CharClass::Url, 16),
    format("xoxr-", CharClass::Url, 16),
    format("xoxs-", CharClass::Url, 16),
    format("xapp-", CharClass::Url, 16),
    format("AIza", CharClass::Url, 35),
    format("sk_live_", CharClass::Alphanumeric, 16),
    format("rk_live_", CharClass::Alphanumeric, 16),
    format("sk_test_", CharClass::Alphanumeric, 16),
    format("whsec_", CharClass::Alphanumeric, 24),
    format("npm_", CharClass::Alphanumeric, 36),
    format("pypi-", CharClass::Url, 50),
    format("rct_", CharClass::Url, 40),
    TokenFormat {
        is_ambiguous: true,
        ..format("sk-", CharClass::Url, 20)
    },
    TokenFormat {
        min_dots: 2,
        ..format("eyJ", CharClass::Dotted, 40)
    },
];

/// The first lines of private keys.
pub(super) const KEY_BEGINS: [&str; 7] = [
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----BEGIN DSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
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
#[derive(Debug, Clone)]
pub(super) struct OpenToken {
    /// Position in the stream from which on the token is not masked yet.
    pub(super) start: u64,
    format: TokenFormat,
    pub(super) length: u16,
    dots: u16,
    has_digit: bool,
    pub(super) is_complete: bool,
}

impl OpenToken {
    pub(super) const fn new(start: u64, format: TokenFormat) -> Self {
        Self {
            start,
            format,
            length: 0,
            dots: 0,
            has_digit: false,
            is_complete: false,
        }
    }

    pub(super) fn is_of(&self, format: TokenFormat) -> bool {
        self.format.prefix == format.prefix
    }

    pub(super) const fn next(&mut self, byte: u8) -> ByteStep {
        if !self.format.class.contains(byte) {
            return ByteStep::Outside;
        }
        if self.is_complete {
            return ByteStep::Inside;
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
#[derive(Debug, Clone, Default)]
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
