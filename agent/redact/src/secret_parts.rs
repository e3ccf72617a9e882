//! The parts of a value that are secrets on their own: programs print one field of a structured
//! secret, or write it anew with other spaces.
//!
//! - JSON: the strings and long numbers of an object or array, by the name of their field;
//! - pairs, one per line or with `;`, `&` or spaces between: `.env`, INI, `.npmrc`, YAML,
//!   connection strings, HTTP headers, the query of an address;
//! - `.netrc`, and what stands behind the first colon of `user:password`;
//! - the password of an address, see [`super::address`];
//! - the same in base64, as in the configuration of Docker;
//! - the lines of a text without any of these.
//!
//! Punctuation and names of fields are never a part. A field whose name says nothing is one only if
//! its value can hardly be anything but a secret. Bounds: four levels of nesting, [`MAX_PARTS`].

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::address;
use super::secret_name::NameClass;
use super::secret_value::Evidence;
use super::shape;

/// Most parts of one value.
const MAX_PARTS: usize = 256;

/// Deepest nesting: JSON in a string in base64 in JSON.
const MAX_DEPTH: usize = 4;

/// Shortest base64 that is decoded; shorter words are base64 by chance.
const MIN_BASE64_BYTES: usize = 12;

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretPart {
    pub(super) value: Vec<u8>,
    pub(super) evidence: Evidence,
    /// Whether the user should hear if it cannot be redacted.
    pub(super) is_reported: bool,
}

/// The parts of a value. If its own name says that it is a secret, so are its lines.
pub(super) fn parts(value: &[u8], is_secret: bool) -> Vec<SecretPart> {
    let mut parts = Parts {
        is_secret,
        found: Vec::new(),
    };
    let is_structured = parts.read(value, 0);
    if is_secret && !is_structured {
        parts.read_plain(value);
    }
    parts.found
}

struct Parts {
    /// Whether the whole value is a secret.
    is_secret: bool,
    found: Vec<SecretPart>,
}

impl Parts {
    fn add(&mut self, value: &[u8], evidence: Evidence, is_reported: bool) {
        let value = value.trim_ascii();
        let is_known = self.found.iter().any(|part| part.value == value);
        if !value.is_empty() && !is_known && self.found.len() < MAX_PARTS {
            let value = value.to_vec();
            self.found.push(SecretPart {
                value,
                evidence,
                is_reported,
            });
        }
    }

    /// Reads a structured text. Returns whether it is one.
    fn read(&mut self, text: &[u8], depth: usize) -> bool {
        let text = text.trim_ascii();
        if depth >= MAX_DEPTH || text.is_empty() {
            return false;
        }
        if matches!(text[0], b'{' | b'[')
            && let Ok(json) = serde_json::from_slice(text)
        {
            self.read_json(b"", &json, depth);
            return true;
        }
        let bare = without_scheme(text);
        if bare.len() < text.len() && self.is_secret {
            self.add(bare, Evidence::Name, true);
            return self.read(bare, depth + 1) || !bare.contains(&b'\n');
        }
        for password in address::passwords(text) {
            self.add(&password, Evidence::Name, true);
        }
        if is_key_block(text) {
            self.read_key_lines(text);
            return true;
        }
        let has_login = self.read_netrc(text);
        let has_pairs = self.read_pairs(text, depth);
        has_login || has_pairs || self.read_base64(text, depth)
    }

    fn read_json(&mut self, name: &[u8], json: &serde_json::Value, depth: usize) {
        use serde_json::Value;
        match json {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.read_json(name.as_bytes(), value, depth);
                }
            }
            Value::Array(values) => {
                for value in values {
                    self.read_json(name, value, depth);
                }
            }
            Value::String(text) => self.read_field(name, text.as_bytes(), depth),
            Value::Number(number) => self.read_field(name, number.to_string().as_bytes(), depth),
            Value::Bool(_) | Value::Null => {}
        }
    }

    /// Reads the value of a field.
    fn read_field(&mut self, name: &[u8], value: &[u8], depth: usize) {
        let value = without_scheme(value);
        if shape::is_switch(value) {
            return;
        }
        let class = NameClass::of(name);
        let is_secret = matches!(class, NameClass::Secret | NameClass::Key);
        match class {
            NameClass::Secret => self.add(value, Evidence::Name, self.is_secret),
            NameClass::Key => self.add(value, Evidence::KeyName, false),
            NameClass::DataKey => {}
            NameClass::Setting | NameClass::Other
                if is_file_name(name) || !shape::is_random(value) => {}
            NameClass::Setting | NameClass::Other => self.add(value, Evidence::Shape, false),
        }
        let is_structured = self.read(value, depth + 1);
        if is_secret && !is_structured && value.contains(&b'\n') {
            self.read_plain(value);
        }
    }

    /// Reads `name=value` and `name: value`. Returns whether the text consists of these.
    fn read_pairs(&mut self, text: &[u8], depth: usize) -> bool {
        let mut count = 0;
        let mut others = 0;
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || matches!(line[0], b'#' | b';' | b'[') || line.ends_with(b":") {
                continue;
            }
            let pairs = pairs_of(line);
            match pairs.is_empty() {
                true => others += 1,
                false => count += 1,
            }
            for (name, value) in pairs {
                self.read_field(name, unquoted(value), depth);
            }
        }
        count > 0 && others == 0
    }

    /// Reads `machine NAME login NAME password VALUE`.
    fn read_netrc(&mut self, text: &[u8]) -> bool {
        let words: Vec<&[u8]> = text
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .collect();
        if !words
            .iter()
            .any(|word| matches!(*word, b"machine" | b"default"))
        {
            return false;
        }
        let mut has_login = false;
        for pair in words.windows(2) {
            if matches!(pair[0], b"password" | b"account") {
                self.add(pair[1], Evidence::Name, self.is_secret);
                has_login = true;
            }
        }
        has_login
    }

    fn read_base64(&mut self, text: &[u8], depth: usize) -> bool {
        let joined: Vec<u8> = text
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let end = joined
            .iter()
            .rposition(|byte| *byte != b'=')
            .map_or(0, |last| last + 1);
        if joined.len() < MIN_BASE64_BYTES {
            return false;
        }
        let encoded = &joined[..end];
        let decoded = STANDARD_NO_PAD
            .decode(encoded)
            .or_else(|_| URL_SAFE_NO_PAD.decode(encoded));
        let Some(decoded) = decoded.ok().filter(|decoded| is_text(decoded)) else {
            return false;
        };
        self.add(&decoded, Evidence::Shape, false);
        if !self.read(&decoded, depth + 1) {
            self.read_plain(&decoded);
        }
        true
    }

    /// Reads a secret without a structure: its lines, and the password behind a user.
    fn read_plain(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        let is_several = text.contains(&b'\n');
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if is_several {
                self.add(line, Evidence::Name, true);
            }
            let user = line.iter().position(|byte| *byte == b':');
            if let Some(user) = user.filter(|user| *user > 0 && is_name(&line[..*user])) {
                self.add(&line[user + 1..], Evidence::Line, false);
            }
        }
    }

    /// Reads the lines of keys and certificates, but not the frame lines that all of them share.
    fn read_key_lines(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if !line.starts_with(b"-----") {
                self.add(line, Evidence::Line, false);
            }
        }
    }
}

/// The pairs of a line. Only a pair that takes the whole line may have spaces in its value.
fn pairs_of(line: &[u8]) -> Vec<(&[u8], &[u8])> {
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let line = line.strip_prefix(b"- ").unwrap_or(line);
    for separator in [b';', b'&', b' ', b','] {
        let pieces = line.split(|byte| *byte == separator);
        let pieces = pieces.filter(|piece| !piece.trim_ascii().is_empty());
        let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
        for piece in pieces {
            match (pair_of(piece, b"="), pairs.last_mut()) {
                (Some(pair), _) => pairs.push(pair),
                // A password may contain the separator, if that is not a space.
                (None, Some((_, value))) if matches!(separator, b';' | b'&') => {
                    let start = offset_in(line, value);
                    let end = offset_in(line, piece) + piece.len();
                    *value = &line[start..end];
                }
                (None, _) => {
                    pairs.clear();
                    break;
                }
            }
        }
        if pairs.len() > 1 {
            return pairs;
        }
    }
    let query = memchr::memchr(b'?', line).filter(|_| memchr::memmem::find(line, b"://").is_some());
    if let Some(query) = query {
        return pairs_of(&line[query + 1..]);
    }
    // `name: value` needs its space, or every time of day would be a pair.
    let pair = match pair_of(line, b"=") {
        Some((name, _)) if name.contains(&b':') && !name.starts_with(b"/") => pair_of(line, b": "),
        Some(pair) => Some(pair),
        None => pair_of(line, b": "),
    };
    pair.into_iter().collect()
}

/// Where a piece of a text starts in it.
fn offset_in(text: &[u8], piece: &[u8]) -> usize {
    piece.as_ptr().addr().saturating_sub(text.as_ptr().addr())
}

fn pair_of<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(text, separator)?;
    let (name, value) = (
        text[..at].trim_ascii(),
        text[at + separator.len()..].trim_ascii(),
    );
    // `//registry.npmjs.org/:_authToken`
    let last = name.rsplit(|byte| *byte == b':').next().unwrap_or_default();
    let name = if name.starts_with(b"/") { last } else { name };
    let name = unquoted(name);
    let is_padding = value.iter().all(|byte| *byte == b'=');
    (!is_padding && is_field_name(name)).then_some((name, value))
}

fn is_field_name(name: &[u8]) -> bool {
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b' ');
    name.first()
        .is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && name.len() <= 64
        && name.iter().all(is_part)
}

fn is_name(text: &[u8]) -> bool {
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
    text.iter().all(is_part)
}

/// Whether a field holds the name of something: a value that looks random there is an identifier.
fn is_file_name(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    [
        &b"id"[..],
        b"uri",
        b"url",
        b"email",
        b"path",
        b"file",
        b"host",
        b"certificate-authority-data",
    ]
    .iter()
    .any(|end| lower.ends_with(end))
}

fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let inner = |quote: u8| value.strip_prefix(&[quote])?.strip_suffix(&[quote]);
    inner(b'"').or_else(|| inner(b'\'')).unwrap_or(value)
}

/// A credential without the scheme of HTTP in front of it.
fn without_scheme(value: &[u8]) -> &[u8] {
    let schemes: [&[u8]; 4] = [b"bearer ", b"basic ", b"token ", b"apikey "];
    let scheme = schemes.iter().find(|scheme| {
        let start = value.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    scheme.map_or(value, |scheme| value[scheme.len()..].trim_ascii())
}

fn is_key_block(text: &[u8]) -> bool {
    text.starts_with(b"-----BEGIN ")
}

/// Whether bytes are text that a person wrote, rather than a key that happened to decode.
fn is_text(bytes: &[u8]) -> bool {
    bytes.len() >= 8
        && std::str::from_utf8(bytes).is_ok_and(|text| {
            let is_part =
                |letter: char| !letter.is_control() || matches!(letter, '\n' | '\r' | '\t');
            text.chars().all(is_part)
        })
}
