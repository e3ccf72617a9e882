//! The strings and numbers of an event line, with where they stand in it.
//!
//! The line was checked when it was stored, so it is valid JSON; of other bytes some tokens are
//! found and nothing fails. One pass; memory: one number per level of nesting.

use std::ops::Range;

/// A string or a number in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Where it stands: a string without its quotes.
    pub(super) range: Range<usize>,
    /// What it is.
    pub(super) kind: TokenKind,
    /// The names of the fields that lead to it, from the outermost, as they are written; without
    /// those of arrays. For a name, those of the objects around it.
    pub(super) path: Vec<&'a [u8]>,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// The name of a field.
    Name,
    /// A string that is a value.
    String,
    /// A number.
    Number,
}

/// An object or an array that is open.
#[derive(Debug)]
struct Level<'a> {
    is_object: bool,
    expects_name: bool,
    field: Option<&'a [u8]>,
}

/// The strings and numbers of a line, in order.
pub(super) fn tokens(line: &[u8]) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'{' | b'[' => levels.push(Level {
                is_object: byte == b'{',
                expects_name: byte == b'{',
                field: None,
            }),
            b'}' | b']' => drop(levels.pop()),
            b',' => {
                if let Some(level) = levels.last_mut() {
                    level.expects_name = level.is_object;
                }
            }
            b'"' => {
                let range = at + 1..string_end(line, at + 1);
                at = range.end;
                let is_name = levels.last().is_some_and(|level| level.expects_name);
                if let (true, Some(level)) = (is_name, levels.last_mut()) {
                    level.expects_name = false;
                    level.field = None;
                    found.push(token(range.clone(), TokenKind::Name, &levels));
                    if let Some(level) = levels.last_mut() {
                        level.field = Some(&line[range]);
                    }
                } else {
                    found.push(token(range, TokenKind::String, &levels));
                }
            }
            b'-' | b'0'..=b'9' => {
                let length = line[at..]
                    .iter()
                    .take_while(|byte| {
                        matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    })
                    .count();
                found.push(token(at..at + length, TokenKind::Number, &levels));
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn token<'a>(range: Range<usize>, kind: TokenKind, levels: &[Level<'a>]) -> Token<'a> {
    Token {
        range,
        kind,
        path: levels.iter().filter_map(|level| level.field).collect(),
    }
}

/// Where the closing quote of a string stands.
fn string_end(line: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', line.get(at..).unwrap_or_default()) {
        if line[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_and_number_is_found_with_its_path() {
        let line = br#"{"kind":"log","a\"b":[-1.5e3,{"c":"x\\"}],"d":"","e":true,"f":{"g":7}}"#;
        let found: Vec<_> = tokens(line)
            .iter()
            .map(|token| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let path: Vec<_> = token.path.iter().map(|name| text(name)).collect();
                (text(&line[token.range.clone()]), token.kind, path.join("/"))
            })
            .collect();
        let expected = [
            ("kind", TokenKind::Name, ""),
            ("log", TokenKind::String, "kind"),
            (r#"a\"b"#, TokenKind::Name, ""),
            ("-1.5e3", TokenKind::Number, r#"a\"b"#),
            ("c", TokenKind::Name, r#"a\"b"#),
            (r"x\\", TokenKind::String, r#"a\"b/c"#),
            ("d", TokenKind::Name, ""),
            ("", TokenKind::String, "d"),
            ("e", TokenKind::Name, ""),
            ("f", TokenKind::Name, ""),
            ("g", TokenKind::Name, "f"),
            ("7", TokenKind::Number, "f/g"),
        ];
        let expected = expected.map(|(text, kind, path)| (text.to_owned(), kind, path.to_owned()));
        assert_eq!(found, expected);
        for broken in [r#"{"a"#, r#""\"#, "{]}-", "", r#"{"a":"b\"#] {
            let _any = tokens(broken.as_bytes());
        }
    }
}
