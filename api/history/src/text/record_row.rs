//! The row that a viewer shows for a structured log line: the message, followed by the other fields
//! of its JSON object as `key=value`, in their order.
//!
//! It is what the page draws (`api/web/src/core/record.ts`), with numbers as they were written. The
//! page cuts a long row; here it has all fields.

use serde_json::value::RawValue;

use super::terminal_row::shown_rows;
use crate::raw_fields::RawFields;

/// Names of the level, which the row does not repeat.
const LEVEL_KEYS: [&str; 4] = ["level", "lvl", "severity", "levelname"];

/// Names of the message.
const MESSAGE_KEYS: [&str; 3] = ["message", "msg", "event"];

/// What a line feed in a message is shown as.
const NEWLINE_SIGN: &str = " \u{23ce} ";

/// The row of a message, with the fields of `json` if there is one.
pub(super) fn record_row(message: &str, json: Option<&str>) -> String {
    let mut row = String::new();
    for (index, line) in message.trim_end().split('\n').enumerate() {
        if index > 0 {
            row.push_str(NEWLINE_SIGN);
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.contains(|letter: char| letter.is_control()) {
            true => row.push_str(&shown_rows(line).join(" ")),
            false => row.push_str(line),
        }
    }
    let fields = json.and_then(|json| serde_json::from_str(json).ok());
    if let Some(RawFields(fields)) = fields {
        push_fields(&mut row, message, &fields);
    }
    row
}

fn push_fields(row: &mut String, message: &str, fields: &[(String, &RawValue)]) {
    let has = |key: &&str| fields.iter().any(|(name, _)| name == key);
    let is_message = |key: &&str| {
        let value = fields.iter().find(|(name, _)| name == key);
        value.is_some_and(|(_, value)| {
            serde_json::from_str::<String>(value.get()).is_ok_and(|text| text == message)
        })
    };
    let level = LEVEL_KEYS.into_iter().find(has);
    let shown_message = MESSAGE_KEYS.into_iter().find(is_message);
    for (name, value) in fields {
        if [level, shown_message].contains(&Some(name.as_str())) {
            continue;
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(name);
        row.push('=');
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) if is_plain(&text) => row.push_str(&text),
            _ => push_decoded(row, value.get()),
        }
    }
}

/// Whether a text is readable without quotes.
fn is_plain(text: &str) -> bool {
    let needs_quotes =
        |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '"' | '=');
    !text.is_empty() && !text.contains(needs_quotes)
}

/// Writes JSON without white space between its parts, its texts without unneeded escapes, and its
/// numbers as they are.
pub(super) fn push_decoded(out: &mut String, json: &str) {
    let mut rest = json;
    while let Some(at) = rest.find(|letter: char| letter == '"' || letter.is_ascii_whitespace()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if !rest.starts_with('"') {
            rest = rest.trim_ascii_start();
            continue;
        }
        let text = &rest[..text_length(rest)];
        rest = &rest[text.len()..];
        // A text with half a surrogate pair cannot be decoded.
        let decoded = serde_json::from_str::<String>(text);
        match decoded.and_then(|text| serde_json::to_string(&text)) {
            Ok(text) => out.push_str(&text),
            Err(_not_text) => out.push_str(text),
        }
    }
    out.push_str(rest);
}

/// The length of a JSON text with its quotes.
fn text_length(json: &str) -> usize {
    let mut is_escaped = true;
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_message_and_its_other_fields() {
        for (message, json, row) in [
            (
                "caf\u{e9} \"quoted\"",
                r#"{"level":"info","msg":"caf\u00e9 \"quoted\"","status":500}"#,
                "caf\u{e9} \"quoted\" status=500",
            ),
            (
                "order",
                r#"{"id":1610521604143693812,"n":1.0,"z":1e400,"10":1,"2":2,"msg":"order"}"#,
                "order id=1610521604143693812 n=1.0 z=1e400 10=1 2=2",
            ),
            (
                "a",
                r#"{"message":"other", "msg":"a", "x": {"b": ["\u6f22", 1.50]}, "s":"two words"}"#,
                "a message=other x={\"b\":[\"漢\",1.50]} s=\"two words\"",
            ),
            ("", r#"{"level":"info","msg":"","a":true}"#, "a=true"),
            (
                "one\ntwo\x1b[1m!\x1b[0m\n",
                r#"{"msg":"one\ntwo\u001b[1m!\u001b[0m\n","e":"\ud800","q":""}"#,
                "one \u{23ce} two! e=\"\\ud800\" q=\"\"",
            ),
            ("broken", "{", "broken"),
        ] {
            assert_eq!(record_row(message, Some(json)), row);
        }
        assert_eq!(record_row("note", None), "note");
    }
}
