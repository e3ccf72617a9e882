//! Masks in event lines. A mask takes exactly as many bytes as what it replaces, so that every
//! count of bytes stays true, and line ends stay, so that line numbers do.
//!
//! What is masked in an event is said by an [`Edit`]. Fields by which readers tell events apart,
//! such as the kind, the level and the stream, are never masked.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runcast_common::protocol::event::{Head, Kind};

use super::json_tokens::{Token, TokenKind, tokens};

/// What a mask begins with, where there is room for it.
const MASK: &[u8] = b"[redacted]";

/// What the rest of a mask consists of.
const FILLER: u8 = b'*';

/// Fields of every event that say what it is.
const HEAD_FIELDS: [&[u8]; 6] = [
    b"kind",
    b"variation",
    b"time",
    b"level",
    b"stream",
    b"format",
];

/// What is masked in one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// All that its producer said.
    Whole,
    /// Parts of some of its fields.
    Parts(Vec<Part>),
}

/// Parts of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The field.
    pub(super) field: Field,
    /// Bytes of its decoded value. They may overlap.
    pub(super) ranges: Vec<Range<usize>>,
}

/// A field of an event line that can be masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    range: Range<usize>,
    encoding: Encoding,
    /// Which text of the run continues here; none for a field that stands alone.
    pub(super) is_chunk: bool,
}

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Base64,
    Number,
}

/// A field without its encoding.
#[derive(Debug, Clone)]
pub(super) struct Decoded {
    /// The value.
    pub(super) bytes: Vec<u8>,
    /// Where each of its bytes begins in the field, and where the field ends; none if the value is
    /// written as it is.
    starts: Option<Vec<u32>>,
}

/// The fields of a line that can be masked, in order.
pub(super) fn fields(line: &[u8]) -> Vec<Field> {
    let kind = Head::parse(line).map_or(Kind::Gap, |head| head.kind);
    let may_be_masked = |token: &Token<'_>| !is_protected(kind, token);
    let found = tokens(line);
    found
        .iter()
        .filter(|token| may_be_masked(token))
        .map(|token| field(kind, token))
        .collect()
}

fn field(kind: Kind, token: &Token<'_>) -> Field {
    let has_text = matches!(kind, Kind::Output | Kind::Log) && token.kind == TokenKind::String;
    let (encoding, is_chunk) = match (token.kind, &token.path[..]) {
        (TokenKind::Number, _) => (Encoding::Number, false),
        (_, [b"text"]) if has_text => (Encoding::Json, true),
        (_, [b"bytes"]) if has_text => (Encoding::Base64, true),
        _ => (Encoding::Json, false),
    };
    Field {
        range: token.range.clone(),
        encoding,
        is_chunk,
    }
}

fn is_protected(kind: Kind, token: &Token<'_>) -> bool {
    match &token.path[..] {
        [] => true,
        [b"group", b"state" | b"id"] => true,
        [b"group"] => token.kind == TokenKind::Name,
        [field] if HEAD_FIELDS.contains(field) => true,
        [field] => match kind {
            Kind::Output | Kind::Log => false,
            Kind::Status => *field == b"status" || *field == b"checksum" || is_number(token),
            // Names and texts only: amounts, states and commands are not what a run prints.
            _ => is_number(token) || !matches!(*field, b"label" | b"message" | b"text" | b"input"),
        },
        _ => !matches!(kind, Kind::Output | Kind::Log | Kind::Status),
    }
}

fn is_number(token: &Token<'_>) -> bool {
    token.kind == TokenKind::Number
}

impl Field {
    /// The value of the field in its line.
    pub(super) fn decode(&self, line: &[u8]) -> Decoded {
        let encoded = &line[self.range.clone()];
        match self.encoding {
            Encoding::Base64 => Decoded {
                bytes: BASE64.decode(encoded).unwrap_or_default(),
                starts: None,
            },
            Encoding::Json if encoded.contains(&b'\\') => unescape(encoded),
            Encoding::Json | Encoding::Number => Decoded {
                bytes: encoded.to_vec(),
                starts: None,
            },
        }
    }

    /// Masks these bytes of the value.
    fn mask(&self, line: &mut [u8], ranges: &[Range<usize>]) {
        let decoded = self.decode(line);
        let encoded = &mut line[self.range.clone()];
        match self.encoding {
            // Digits of one number mean nothing without the others.
            Encoding::Number => mask_number(encoded),
            Encoding::Base64 => {
                let mut bytes = decoded.bytes;
                for range in merged(ranges) {
                    fill(&mut bytes[range]);
                }
                // As long as before: base64 depends on the length alone.
                encoded.copy_from_slice(BASE64.encode(&bytes).as_bytes());
            }
            Encoding::Json => {
                for range in merged(ranges) {
                    mask_json(&mut encoded[decoded.encoded_range(&range)]);
                }
            }
        }
    }
}

impl Decoded {
    fn encoded_range(&self, range: &Range<usize>) -> Range<usize> {
        match &self.starts {
            None => range.clone(),
            Some(starts) => starts[range.start] as usize..starts[range.end] as usize,
        }
    }
}

/// The line with its edit applied: as long as before, and still an event of the same kind.
pub(super) fn apply(line: &[u8], edit: &Edit) -> Vec<u8> {
    let mut line = line.to_vec();
    match edit {
        Edit::Whole => {
            for field in fields(&line.clone()) {
                let length = field.decode(&line).bytes.len();
                field.mask(&mut line, std::slice::from_ref(&(0..length)));
            }
        }
        Edit::Parts(parts) => {
            for part in parts {
                part.field.mask(&mut line, &part.ranges);
            }
        }
    }
    line
}

/// The bytes with these ranges masked: as JSON, in which escapes stay whole, or as they are.
pub(super) fn mask_text(bytes: &[u8], ranges: &[Range<usize>], is_json: bool) -> Vec<u8> {
    let mut masked = bytes.to_vec();
    for range in merged(ranges) {
        match is_json {
            true => mask_json(&mut masked[range]),
            false => fill(&mut masked[range]),
        }
    }
    masked
}

/// The ranges in order, those that overlap or touch as one.
fn merged(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Masks a part of a JSON string, but for its line ends.
fn mask_json(encoded: &mut [u8]) {
    let (mut start, mut at) = (0, 0);
    while at < encoded.len() {
        if encoded[at] != b'\\' {
            at += 1;
            continue;
        }
        if matches!(encoded.get(at + 1), Some(b'n' | b'r')) {
            fill(&mut encoded[start..at]);
            start = at + 2;
        }
        at += 2;
    }
    fill(&mut encoded[start..]);
}

/// Masks raw bytes, but for their line ends.
fn fill(bytes: &mut [u8]) {
    for line in bytes.split_mut(|byte| matches!(byte, b'\n' | b'\r')) {
        let (start, rest) = line.split_at_mut(if line.len() < MASK.len() {
            0
        } else {
            MASK.len()
        });
        start.copy_from_slice(&MASK[..start.len()]);
        rest.fill(FILLER);
    }
}

/// A zero of the same length.
fn mask_number(digits: &mut [u8]) {
    digits.fill(b'0');
    match digits {
        [_] => {}
        [sign, _] => *sign = b'-',
        [_, point, ..] => *point = b'.',
        [] => {}
    }
}

/// Decodes a JSON string with escapes.
fn unescape(encoded: &[u8]) -> Decoded {
    let (mut bytes, mut starts) = (Vec::with_capacity(encoded.len()), Vec::new());
    let mut at = 0;
    while at < encoded.len() {
        let before = bytes.len();
        let length = match encoded[at] {
            b'\\' => unescape_one(&encoded[at..], &mut bytes),
            byte => {
                bytes.push(byte);
                1
            }
        };
        let start = u32::try_from(at).unwrap_or(u32::MAX);
        starts.resize(starts.len() + bytes.len() - before, start);
        at += length;
    }
    starts.push(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    Decoded {
        bytes,
        starts: Some(starts),
    }
}

/// Decodes the escape at the beginning, and returns its length.
fn unescape_one(encoded: &[u8], out: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        let digits = encoded.get(at..at + 4)?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (code, length) = match encoded.get(1) {
        Some(b'n') => (0x0a, 2),
        Some(b't') => (0x09, 2),
        Some(b'r') => (0x0d, 2),
        Some(b'b') => (0x08, 2),
        Some(b'f') => (0x0c, 2),
        Some(b'u') => match (unit(2), encoded.get(6..8), unit(8)) {
            (Some(high @ 0xd800..0xdc00), Some(br"\u"), Some(low @ 0xdc00..0xe000)) => {
                (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12)
            }
            (Some(code), ..) => (code, 6),
            (None, ..) => (0xfffd, encoded.len().min(6)),
        },
        Some(byte) => (u32::from(*byte), 2),
        None => (0xfffd, 1),
    };
    let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &str) -> String {
        let masked = apply(line.as_bytes(), &Edit::Whole);
        assert_eq!(masked.len(), line.len(), "{line}");
        serde_json::from_slice::<serde_json::Value>(&masked).expect("still JSON");
        let (before, after) = (Head::parse(line.as_bytes()), Head::parse(&masked));
        assert_eq!(before, after, "still the same event");
        String::from_utf8(masked).expect("text")
    }

    #[test]
    fn a_masked_event_says_nothing_and_keeps_its_length() {
        for (line, expected) in [
            (
                r#"{"kind":"output","variation":3,"time":17,"stream":"stdout","text":"a secret of mine\r\nab\n"}"#,
                r#"{"kind":"output","variation":3,"time":17,"stream":"stdout","text":"[redacted]******\r\n**\n"}"#,
            ),
            (
                r#"{"kind":"log","level":"info","group":{"state":"start","id":"g","title":"Secrets"},"a":{"b":[1,-12,4.25e1]},"c":true}"#,
                r#"{"kind":"log","level":"info","group":{"state":"start","id":"g","title":"*******"},"a":{"*":[0,0.0,0.0000]},"c":true}"#,
            ),
            (
                r#"{"kind":"output","bytes":"/3NlY3JldAo="}"#,
                r#"{"kind":"output","bytes":"KioqKioqKgo="}"#,
            ),
            (
                r#"{"kind":"status","status":"failed","exit_code":3,"command":["x","--key=1"],"message":"no key","events":5,"bytes":70,"checksum":"crc32c:00000000"}"#,
                r#"{"kind":"status","status":"failed","exit_code":3,"command":["*","*******"],"message":"******","events":5,"bytes":70,"checksum":"crc32c:00000000"}"#,
            ),
            (
                r#"{"kind":"progress","label":"layer","current":5,"total":9,"state":"busy"}"#,
                r#"{"kind":"progress","label":"*****","current":5,"total":9,"state":"busy"}"#,
            ),
            (
                r#"{"kind":"gap","after":"1-2","until":"1-5","count":2}"#,
                r#"{"kind":"gap","after":"1-2","until":"1-5","count":2}"#,
            ),
        ] {
            assert_eq!(whole(line), expected);
        }
    }

    #[test]
    fn a_part_is_masked_where_it_stands_in_the_encoded_line() {
        let line = r#"{"kind":"output","text":"\u00e9\"p\\q\ud83d\ude00é\n\tz"}"#;
        let field = fields(line.as_bytes()).remove(0);
        let decoded = field.decode(line.as_bytes());
        let text = String::from_utf8(decoded.bytes).expect("text");
        assert_eq!(text, "é\"p\\q😀é\n\tz");
        let from = text.find('"').expect("a quote");
        let until = text.find('\t').expect("a tab");
        let edit = Edit::Parts(vec![Part {
            field,
            ranges: vec![from..from + 1, from + 1..until],
        }]);
        let masked = apply(line.as_bytes(), &edit);
        let expected = r#"{"kind":"output","text":"\u00e9[redacted]**********\n\tz"}"#;
        assert_eq!(String::from_utf8(masked).expect("text"), expected);
    }
}
