//! Escapes the characters that some readers take for the end of a line, though JSON does not: NEL
//! (U+0085), LINE SEPARATOR (U+2028) and PARAGRAPH SEPARATOR (U+2029).
//!
//! Python's `str.splitlines` and clients built on it cut a line of NDJSON or of an SSE frame there.
//! Such a character stands in a text or in a name, where an escape means the same. The other
//! characters of that kind (VT, FF, FS, GS, RS) are control characters, which JSON always escapes.
//!
//! Cost: one pass of `memchr`, and a copy of a line that has such a character.

use std::borrow::Cow;

/// The first byte of NEL, and that of the two separators.
const NEL_START: u8 = 0xc2;
const SEPARATOR_START: u8 = 0xe2;

/// Bytes of one escape.
const ESCAPE_BYTES: usize = 6;

/// The escape of the character that these bytes begin with, and the length of that character.
fn escape_of(bytes: &[u8]) -> Option<(&'static [u8; ESCAPE_BYTES], usize)> {
    match bytes {
        [NEL_START, 0x85, ..] => Some((b"\\u0085", 2)),
        [SEPARATOR_START, 0x80, 0xa8, ..] => Some((b"\\u2028", 3)),
        [SEPARATOR_START, 0x80, 0xa9, ..] => Some((b"\\u2029", 3)),
        _ => None,
    }
}

/// Appends JSON with these characters escaped.
pub fn push_escaped(out: &mut Vec<u8>, json: &[u8]) {
    let mut copied = 0;
    for at in memchr::memchr2_iter(NEL_START, SEPARATOR_START, json) {
        if let Some((escape, length)) = escape_of(&json[at..]) {
            out.extend_from_slice(&json[copied..at]);
            out.extend_from_slice(escape);
            copied = at + length;
        }
    }
    out.extend_from_slice(&json[copied..]);
}

/// The JSON with these characters escaped; the same if it has none.
#[must_use]
pub fn escaped(json: &[u8]) -> Cow<'_, [u8]> {
    let mut starts = memchr::memchr2_iter(NEL_START, SEPARATOR_START, json);
    if starts.all(|at| escape_of(&json[at..]).is_none()) {
        return Cow::Borrowed(json);
    }
    let mut out = Vec::with_capacity(json.len() + 4 * ESCAPE_BYTES);
    push_escaped(&mut out, json);
    Cow::Owned(out)
}

/// The length of JSON with these characters escaped.
pub(super) fn escaped_length(json: &[u8]) -> usize {
    let starts = memchr::memchr2_iter(NEL_START, SEPARATOR_START, json);
    let added = starts
        .filter_map(|at| escape_of(&json[at..]))
        .map(|(_, length)| ESCAPE_BYTES - length);
    json.len() + added.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_separators_are_escaped_and_nothing_else() {
        for (json, expected) in [
            (
                "{\"a\":\"\u{2028}b\u{2029}\u{85}\"}",
                r#"{"a":"\u2028b\u2029\u0085"}"#,
            ),
            ("{\"\u{85}\":1}", r#"{"\u0085":1}"#),
            // Others that begin with the same bytes.
            (
                "\"\u{a0}…“\u{2027}\u{202a}é漢\u{86}\"",
                "\"\u{a0}…“\u{2027}\u{202a}é漢\u{86}\"",
            ),
            ("", ""),
        ] {
            let mut out = b"before ".to_vec();
            push_escaped(&mut out, json.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), format!("before {expected}"));
            assert_eq!(escaped(json.as_bytes()), expected.as_bytes());
            assert_eq!(escaped_length(json.as_bytes()), expected.len());
        }
        // Incomplete characters at the end.
        for cut in [&b"\xc2"[..], b"\xe2", b"\xe2\x80"] {
            assert_eq!(escaped(cut), cut);
        }
    }
}
