//! Secrets that are known by their shape: tokens with a prefix of their own, and private keys.
//!
//! A token is its prefix and at least so many of the right characters; all that follow belong to it.
//! It ends with its line: what follows a line end cannot be told from the next line's own text. The
//! prefixes are matched by the same automaton as the values ([`super::table`]); this file looks at
//! what stands behind them, byte by byte.
//!
//! A private key is what stands between the `BEGIN` line, which stays as it is, and the end of the
//! `END` line, in characters that key blocks are made of, at most [`MAX_KEY_BYTES`].
//!
//! Bounds: a token that is not complete after [`MAX_OPEN_BYTES`] is none.

/// Bytes after which a prefix without the rest of its shape is ordinary text: longer than the header
/// and claims of a usual JSON web token, where the second dot comes.
pub(super) const MAX_OPEN_BYTES: u16 = 2048;

/// Most bytes of a key block: RSA with 16,384 bits in PEM takes 12.5 KiB.
pub(super) const MAX_KEY_BYTES: u16 = 16 * 1024;

/// Length of a word in a key block behind which a space may stand for the line end: shells turn one
/// into the other. Lines of key blocks have 64 or more characters, words of prose never.
const KEY_WORD_BYTES: u16 = 40;

/// What the characters of a token are.
#[derive(Debug, Clone, Copy)]
enum Class {
    Alphanumeric,
    Upper,
    /// With `-` and `_`.
    Url,
    /// With `-`, `_` and `.`.
    Dotted,
}

impl Class {
    const fn has(self, byte: u8) -> bool {
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        }
    }
}

/// A kind of token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    class: Class,
    /// Characters behind the prefix, at least.
    least: u16,
    dots: u16,
    /// The prefix is also the end of words (`task-`): it must not follow a letter, and a digit must
    /// be among the characters.
    pub(super) ambiguous: bool,
}

const fn shape(prefix: &'static str, class: Class, least: u16) -> Shape {
    Shape {
        prefix,
        class,
        least,
        dots: 0,
        ambiguous: false,
    }
}

/// All kinds of tokens: AWS, GitHub, GitLab, Slack, Google, Stripe, npm, PyPI, OpenAI and Anthropic,
/// JSON web tokens, Runcast.
pub(super) const SHAPES: [Shape; 26] = [
    shape("AKIA", Class::Upper, 16),
    shape("ASIA", Class::Upper, 16),
    shape("ghp_", Class::Alphanumeric, 36),
    shape("gho_", Class::Alphanumeric, 36),
    shape("ghu_", Class::Alphanumeric, 36),
    shape("ghs_", Class::Alphanumeric, 36),
    shape("ghr_", Class::Alphanumeric, 36),
    shape("github_pat_", Class::Url, 40),
    shape("glpat-", Class::Url, 20),
    shape("xoxa-", Class::Url, 16),
    shape("xoxb-", Class::Url, 16),
    shape("xoxe-", Class::Url, 16),
    shape("xoxp-", Class::Url, 16),
    shape("xoxr-", Class::Url, 16),
    shape("xoxs-", Class::Url, 16),
    shape("xapp-", Class::Url, 16),
    shape("AIza", Class::Url, 35),
    shape("sk_live_", Class::Alphanumeric, 16),
    shape("rk_live_", Class::Alphanumeric, 16),
    shape("sk_test_", Class::Alphanumeric, 16),
    shape("whsec_", Class::Alphanumeric, 24),
    shape("npm_", Class::Alphanumeric, 36),
    shape("pypi-", Class::Url, 50),
    shape("rct_", Class::Url, 40),
    Shape {
        ambiguous: true,
        ..shape("sk-", Class::Url, 20)
    },
    Shape {
        dots: 2,
        ..shape("eyJ", Class::Dotted, 40)
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

/// How the last line of any key begins.
pub(super) const KEY_END: &str = "-----END";

/// What a byte means for a token or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It may become one.
    Open,
    /// It is one, and the byte belongs to it.
    Inside,
    /// It is none, or it ended before the byte.
    Over,
}

/// A token that begins at `start` of the stream.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) start: u64,
    shape: Shape,
    pub(super) length: u16,
    dots: u16,
    digit: bool,
    pub(super) complete: bool,
}

impl Token {
    pub(super) const fn new(start: u64, shape: Shape) -> Self {
        Self {
            start,
            shape,
            length: 0,
            dots: 0,
            digit: false,
            complete: false,
        }
    }

    /// True if it is of the same kind.
    pub(super) fn is_of(&self, shape: Shape) -> bool {
        self.shape.prefix == shape.prefix
    }

    pub(super) const fn take(&mut self, byte: u8) -> Step {
        if !self.shape.class.has(byte) {
            return Step::Over;
        }
        if self.complete {
            return Step::Inside;
        }
        self.length += 1;
        self.dots += (byte == b'.') as u16;
        self.digit |= byte.is_ascii_digit();
        self.complete = self.length >= self.shape.least
            && self.dots >= self.shape.dots
            && (self.digit || !self.shape.ambiguous);
        match self.complete {
            true => Step::Inside,
            false if self.length > MAX_OPEN_BYTES => Step::Over,
            false => Step::Open,
        }
    }
}

/// A key whose `BEGIN` line has been seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    length: u16,
    word: u16,
    last: u8,
    dashes: u8,
    /// The `END` line has begun.
    pub(super) ending: bool,
    over: bool,
}

impl Key {
    pub(super) fn take(&mut self, byte: u8) -> Step {
        if self.over || self.length >= MAX_KEY_BYTES {
            return Step::Over;
        }
        let belongs = match byte {
            b' ' => {
                self.ending
                    || self.word >= KEY_WORD_BYTES
                    || matches!(self.last, b'\n' | b' ' | b':' | b',')
            }
            // A backslash, for keys within JSON.
            b'+' | b'/' | b'=' | b':' | b',' | b'-' | b'\\' | b'\r' | b'\n' | b'\t' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if !belongs {
            return Step::Over;
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
        self.over = self.ending && self.dashes == 5;
        self.last = byte;
        Step::Inside
    }
}
