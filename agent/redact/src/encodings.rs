//! The forms in which programs print a secret value:
//!
//! - unchanged;
//! - in base64, standard and URL-safe, in three alignments that depend on how many bytes precede it
//!   in the encoded text. Only the characters that depend on nothing but the value are searched, so
//!   up to 4 bits of its first and last byte stay readable beside the mask;
//! - JSON-escaped: as `serde_json` and JavaScript do it, with `\/`, with `\u003c` for `<` (Go), and
//!   with everything outside ASCII as `\uXXXX` (Python);
//! - URL-encoded with upper and lower case hex digits: everything reserved, all but `/`, like
//!   `encodeURIComponent`, and as a form (`+` for a space);
//! - quoted for a shell: in single quotes (both ways to write a single quote), in double quotes,
//!   with backslashes (`printf %q`), and as `$'...'`;
//! - line by line if it has several lines: the text forms of each line of at least
//!   [`MIN_LINE_BYTES`], since programs indent lines or put a time in front of them.
//!
//! No form contains a carriage return or a newline: the search skips those of the stream, so it
//! finds a value however it is broken into lines. Bound: about 30 forms of at most six times the
//! value's bytes each; for most values only ten differ.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::secret_value::MIN_SECRET_BYTES;

/// Shortest line of a value that counts as a secret on its own. Longer than the shortest value,
/// because structured values have lines like `{` and `"type":`.
const MIN_LINE_BYTES: usize = 12;

/// Encoded before a value to shift it; the content does not matter.
const SHIFT_BYTES: [u8; 2] = [0; 2];

/// All forms of a value that are long enough to differ from ordinary text.
pub(super) fn forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    text_forms(value, &mut forms);
    for before in 0..=SHIFT_BYTES.len() {
        base64_forms(value, before, &mut forms);
    }
    url_forms(value, &mut forms);
    let lines: Vec<&[u8]> = value.split(|byte| *byte == b'\n').collect();
    if lines.len() > 1 {
        for line in lines.into_iter().map(<[u8]>::trim_ascii) {
            // All key blocks share these frame lines.
            if line.len() >= MIN_LINE_BYTES && !line.starts_with(b"-----") {
                text_forms(line, &mut forms);
            }
        }
    }
    forms
        .into_iter()
        .map(|form| without_terminators(&form))
        .filter(|form| form.len() >= MIN_SECRET_BYTES)
        .collect()
}

/// Whether the search skips this byte: a line end inside a value does not hide it.
pub(super) const fn is_terminator(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn without_terminators(form: &[u8]) -> Vec<u8> {
    let rest = form.iter().filter(|byte| !is_terminator(**byte));
    rest.copied().collect()
}

fn text_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    forms.insert(value.to_vec());
    forms.insert(replaced(value, b"'", |_quote| b"'\\''".to_vec()));
    forms.insert(replaced(value, b"'", |_quote| b"'\"'\"'".to_vec()));
    let backslashed = |byte| vec![b'\\', byte];
    forms.insert(replaced(value, b"\\\"$`", backslashed));
    forms.insert(replaced(value, b"\\\"$`!", backslashed));
    forms.insert(replaced(
        value,
        b" \t!\"#$&'()*;<>?[\\]^`{|}~,",
        backslashed,
    ));
    forms.insert(replaced(value, b"\\'\n\r\t", |byte| {
        let letter = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        };
        vec![b'\\', letter]
    }));
    if let Ok(text) = std::str::from_utf8(value) {
        json_forms(text, forms);
    }
}

fn json_forms(text: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let Ok(quoted) = serde_json::to_string(text) else {
        return;
    };
    let plain = &quoted[1..quoted.len() - 1];
    let escaped = |text: &str, chosen: fn(char) -> bool| {
        let mut out = String::with_capacity(text.len());
        for letter in text.chars() {
            if !chosen(letter) {
                out.push(letter);
                continue;
            }
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
        out
    };
    forms.insert(plain.replace('/', "\\/").into_bytes());
    forms.insert(escaped(plain, |letter| !letter.is_ascii()).into_bytes());
    forms.insert(escaped(plain, |letter| matches!(letter, '<' | '>' | '&')).into_bytes());
    forms.insert(plain.as_bytes().to_vec());
}

fn base64_forms(value: &[u8], before: usize, forms: &mut BTreeSet<Vec<u8>>) {
    let shifted = [&SHIFT_BYTES[..before], value].concat();
    // A character has 6 bits: leave out characters with bits of other bytes.
    let first = (before * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    for encoded in [
        STANDARD_NO_PAD.encode(&shifted),
        URL_SAFE_NO_PAD.encode(&shifted),
    ] {
        forms.insert(encoded.as_bytes()[first..end].to_vec());
    }
}

fn url_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for unescaped in [&b"-._~"[..], b"-._~/", b"-._~!'()*"] {
        for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            let encoded: Vec<u8> = value
                .iter()
                .flat_map(|byte| match byte {
                    byte if byte.is_ascii_alphanumeric() || unescaped.contains(byte) => vec![*byte],
                    byte => {
                        let digit = |half: u8| digits[usize::from(half)];
                        vec![b'%', digit(byte >> 4), digit(byte & 15)]
                    }
                })
                .collect();
            let form = String::from_utf8_lossy(&encoded).replace("%20", "+");
            forms.insert(form.into_bytes());
            forms.insert(encoded);
        }
    }
}

fn replaced(value: &[u8], chosen: &[u8], by: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
    let bytes = value.iter().map(|byte| match chosen.contains(byte) {
        true => by(*byte),
        false => vec![*byte],
    });
    bytes.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(value: &str, form: &str) {
        assert!(
            forms(value.as_bytes()).contains(form.as_bytes()),
            "{form} of {value}"
        );
    }

    #[test]
    fn forms_match_what_programs_print() {
        has("hunter2!", "hunter2!");
        has("a\"b\\c\td", r#"a\"b\\c\td"#);
        has("path/to/it", r"path\/to\/it");
        has("a<b>c&d", r"a\u003cb\u003ec\u0026d");
        has("pässwort😀", r"p\u00e4sswort\ud83d\ude00");
        has("a b/c+d?é", "a%20b%2Fc%2Bd%3F%C3%A9");
        has("a b/c+d?é", "a%20b%2fc%2bd%3f%c3%a9");
        has("a b/c+d?é", "a+b%2Fc%2Bd%3F%C3%A9");
        has("a b/c+d?é", "a%20b/c%2Bd%3F%C3%A9");
        has("it's (it)", "it's%20(it)");
        has("it's (it)", r"it'\''s (it)");
        has("it's (it)", r#"it'"'"'s (it)"#);
        has("it's (it)", r"it\'s\ \(it\)");
        has("say \"$x\"", r#"say \"\$x\""#);
        has("tab\there", r"tab\there");
    }

    #[test]
    fn base64_forms_match_at_every_offset_of_the_encoded_text() {
        let value = b"s3cret>>>value??";
        let forms = forms(value);
        for (before, after) in (0..7).flat_map(|before| (0..4).map(move |after| (before, after))) {
            let text = [&b"abcdefg"[..before], value, &b"wxyz"[..after]].concat();
            for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                let longest = forms
                    .iter()
                    .filter(|form| memchr::memmem::find(encoded.as_bytes(), form).is_some())
                    .map(Vec::len)
                    .max();
                assert!(longest >= Some(20), "{before} {after}: {longest:?}");
            }
        }
    }

    #[test]
    fn long_lines_of_a_value_are_forms_of_their_own() {
        let value = "first line of it\r\n}\n  second \"line\" of it\n-----END PRIVATE KEY-----";
        has(value, "first line of it");
        has(value, r#"second \"line\" of it"#);
        has(
            value,
            "first line of it}  second \"line\" of it-----END PRIVATE KEY-----",
        );
        let forms = forms(value.as_bytes());
        assert!(!forms.contains(&b"}"[..]));
        assert!(!forms.contains(&b"-----END PRIVATE KEY-----"[..]));
    }
}
