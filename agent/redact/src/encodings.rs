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
//! - with the entities of HTML and XML: named, decimal and in hex, for all characters that any
//!   library escapes, with each usual way to write quotes;
//! - as JSON in a JSON string, as in a log of requests; with `''` or `""` for a quote (SQL, CSV,
//!   YAML); with the escapes of C and Python for bytes outside ASCII;
//! - byte by byte if it has at most [`MAX_DUMPED_BYTES`]: in hex with and without separators, as
//!   `\x70` and as `\u0070`, as numbers in decimal.
//!
//! No form contains a carriage return, a newline or an escape sequence: the search skips those of
//! the stream, so it finds a value however it is broken into lines. Bound: about 70 forms, together
//! at most 60 times the value's bytes, and 40 times for long ones; for most values half of them are
//! the same.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::secret_value::MIN_SECRET_BYTES;

/// Longest value that is searched as a list of bytes.
const MAX_DUMPED_BYTES: usize = 512;

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
    html_forms(value, &mut forms);
    if value.len() <= MAX_DUMPED_BYTES {
        byte_forms(value, &mut forms);
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
    // `printf %q`; bash escapes `#` and `~` at the start of a word alone.
    for special in [
        &b" \t!\"#$&'()*;<>?[\\]^`{|}~,"[..],
        b" \t!\"$&'()*;<>?[\\]^`{|},",
    ] {
        forms.insert(replaced(value, special, backslashed));
    }
    forms.insert(replaced(value, b"\\'\n\r\t", |byte| {
        let letter = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        };
        vec![b'\\', letter]
    }));
    // SQL, YAML and CSV double a quote.
    forms.insert(replaced(value, b"'", |_quote| b"''".to_vec()));
    forms.insert(replaced(value, b"\"", |_quote| b"\"\"".to_vec()));
    if !value.is_ascii() {
        foreign_forms(value, forms);
    }
    if let Ok(text) = std::str::from_utf8(value) {
        json_forms(text, forms);
    }
}

/// Bytes outside ASCII as C, Python and git write them.
fn foreign_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let escaped = |escape: fn(u8) -> String| -> Vec<u8> {
        let bytes = value.iter().map(|byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            byte if byte.is_ascii() => vec![*byte],
            byte => escape(*byte).into_bytes(),
        });
        bytes.flatten().collect()
    };
    forms.insert(escaped(|byte| format!("\\x{byte:02x}")));
    forms.insert(escaped(|byte| format!("\\{byte:03o}")));
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
    forms.insert(
        escaped(plain, |letter| {
            matches!(letter, '<' | '>' | '&' | '\'' | '+')
        })
        .into_bytes(),
    );
    let upper = |text: String| replaced_hex_by_upper(&text);
    forms.insert(upper(escaped(plain, |letter| {
        matches!(letter, '<' | '>' | '&' | '\'' | '+')
    })));
    // .NET and PHP write these as numbers too.
    let is_quote = |letter: char| matches!(letter, '<' | '>' | '&' | '\'' | '"' | '+' | '`');
    let numbers = escaped(&text.replace('\\', "\\\\"), is_quote);
    forms.insert(upper(numbers.clone()));
    forms.insert(numbers.into_bytes());
    // A string in a string.
    for once in [plain, &escaped(plain, |letter| !letter.is_ascii())] {
        if let Ok(twice) = serde_json::to_string(once) {
            forms.insert(twice.as_bytes()[1..twice.len() - 1].to_vec());
        }
    }
    forms.insert(plain.as_bytes().to_vec());
}

/// The digits of `\uXXXX` in capitals.
fn replaced_hex_by_upper(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let marks: Vec<usize> = memchr::memmem::find_iter(text.as_bytes(), b"\\u").collect();
    for mark in marks {
        if let Some(digits) = bytes.get_mut(mark + 2..mark + 6) {
            digits.make_ascii_uppercase();
        }
    }
    bytes
}

/// The escapes of HTML and XML. Libraries differ in which characters they escape and in how they
/// write quotes.
fn html_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let Ok(text) = std::str::from_utf8(value) else {
        return;
    };
    let is_marked = |letter: char| matches!(letter, '&' | '<' | '>' | '"' | '\'');
    let is_special = |letter: char| is_marked(letter) || matches!(letter, '/' | '`' | '=');
    for double in ["\"", "&quot;", "&#34;", "&#x22;"] {
        for single in ["'", "&#39;", "&#039;", "&#x27;", "&apos;"] {
            for greater in [">", "&gt;"] {
                let entity = |letter| match letter {
                    '&' => Some("&amp;".to_owned()),
                    '<' => Some("&lt;".to_owned()),
                    '>' => Some(greater.to_owned()),
                    '"' => Some(double.to_owned()),
                    '\'' => Some(single.to_owned()),
                    _ => None,
                };
                insert_escaped(text, entity, forms);
            }
        }
    }
    // A long value is structured, and its fields have forms of their own.
    if value.len() > MAX_DUMPED_BYTES {
        return;
    }
    let decimal = |letter: char| format!("&#{};", u32::from(letter));
    let lower = |letter: char| format!("&#x{:x};", u32::from(letter));
    let upper = |letter: char| format!("&#x{:X};", u32::from(letter));
    let wide = |letter: char| format!("&#x{:02X};", u32::from(letter));
    let named = |letter: char| match letter {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => lower(other),
    };
    let numbers: [&dyn Fn(char) -> String; 5] = [&decimal, &lower, &upper, &wide, &named];
    let is_symbol = |letter: char| !letter.is_ascii_alphanumeric();
    let is_foreign = |letter: char| is_marked(letter) || !letter.is_ascii();
    let chosen: [&dyn Fn(char) -> bool; 5] =
        [&is_marked, &is_special, &is_foreign, &is_symbol, &|_| true];
    for number in numbers {
        for is_chosen in chosen {
            insert_escaped(
                text,
                |letter| is_chosen(letter).then(|| number(letter)),
                forms,
            );
        }
    }
}

fn insert_escaped(
    text: &str,
    escape: impl Fn(char) -> Option<String>,
    forms: &mut BTreeSet<Vec<u8>>,
) {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match escape(letter) {
            Some(entity) => escaped.push_str(&entity),
            None => escaped.push(letter),
        }
    }
    forms.insert(escaped.into_bytes());
}

/// The bytes as numbers, as debuggers and dumps print them.
fn byte_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let mut join = |separator: &str, number: &dyn Fn(&u8) -> String| {
        let numbers: Vec<String> = value.iter().map(number).collect();
        forms.insert(numbers.join(separator).into_bytes());
    };
    let lower = |byte: &u8| format!("{byte:02x}");
    let upper = |byte: &u8| format!("{byte:02X}");
    for separator in ["", " ", ":", "-"] {
        join(separator, &lower);
        join(separator, &upper);
    }
    join("", &|byte| format!("\\x{byte:02x}"));
    join("", &|byte| format!("\\u{byte:04x}"));
    join("", &|byte| format!("%{byte:02X}"));
    join("", &|byte| format!("%{byte:02x}"));
    join(", ", &|byte| format!("0x{byte:02x}"));
    for separator in [",", ", ", " "] {
        join(separator, &u8::to_string);
    }
    // `xxd` and `od -x` group bytes by two.
    for shift in 0..2 {
        let pairs = value.get(shift..).unwrap_or_default().chunks_exact(2);
        let pairs: Vec<String> = pairs
            .map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]))
            .collect();
        forms.insert(pairs.join(" ").into_bytes());
    }
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
        let password = "p&ss<w0rd>\"9'x";
        for escaped in [
            "p&amp;ss&lt;w0rd&gt;&quot;9&#x27;x",
            "p&amp;ss&lt;w0rd&gt;&#34;9&#39;x",
            "p&amp;ss&lt;w0rd>\"9'x",
            "p&amp;ss&lt;w0rd&gt;\"9&apos;x",
            "p&amp;ss&lt;w0rd&gt;&quot;9&#039;x",
            "p&#38;ss&#60;w0rd&#62;&#34;9&#39;x",
            "p&#x26;ss&#x3c;w0rd&#x3e;&#x22;9&#x27;x",
            "p&#x26;ss&#x3C;w0rd&#x3E;&#x22;9&#x27;x",
            r#"p\u0026ss\u003cw0rd\u003e\"9'x"#,
            r"p\u0026ss\u003Cw0rd\u003E\u00229\u0027x",
            r#"p&ss<w0rd>\\\"9'x"#,
            "p&ss<w0rd>\"\"9'x",
            "p&ss<w0rd>\"9''x",
        ] {
            has(password, escaped);
        }
        has("a/b=c`d", "a&#x2F;b&#x3D;c&#x60;d");
        has("héllo1", "h&#233;llo1");
        has("héllo1", "h&#xe9;llo1");
        has("héllo1", r"h\xc3\xa9llo1");
        has("héllo1", r"h\303\251llo1");
        has("p&ss12", "702673733132");
        has("jklmno", "6a6b6c6d6e6f");
        has("jklmno", "6A6B6C6D6E6F");
        has("jklmno", "6a 6b 6c 6d 6e 6f");
        has("jklmno", "6a:6b:6c:6d:6e:6f");
        has("jklmno", r"\x6a\x6b\x6c\x6d\x6e\x6f");
        has("jklmno", r"\u006a\u006b\u006c\u006d\u006e\u006f");
        has("jklmno", "106,107,108,109,110,111");
        has("jklmno", "%6A%6B%6C%6D%6E%6F");
        has("jklmno", "6a6b 6c6d 6e6f");
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
}
