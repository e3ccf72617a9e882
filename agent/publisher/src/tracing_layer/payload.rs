//! The payload of one event, its readable text, and how it is shortened if it is too large.
//!
//! The text is one line, `span{field=value}: message field=value`, whatever the values contain:
//! control characters are escaped in it, and unchanged in `message` and `fields`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::fields::{Fields, cut_note};

/// Limits for each text, tried one after the other while the event is too large. The last step
/// removes all fields and spans.
const TEXT_LIMITS_BYTES: [usize; 4] = [4096, 512, 64, 0];

/// Payload of `log`.
#[derive(Debug, Default, Serialize)]
pub(super) struct LogPayload<'a> {
    pub(super) level: &'static str,
    pub(super) target: &'a str,
    pub(super) message: String,
    pub(super) fields: Fields,
    pub(super) spans: Vec<SpanPayload>,
    /// Whether something was left out because the event was too large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) shortened: bool,
    pub(super) text: String,
    /// How often it was shortened, an index into [`TEXT_LIMITS_BYTES`].
    #[serde(skip)]
    pub(super) steps: usize,
}

/// A span around the event.
#[derive(Debug, Serialize)]
pub(super) struct SpanPayload {
    pub(super) name: &'static str,
    pub(super) fields: Fields,
}

impl LogPayload<'_> {
    /// Writes `text` from all other fields.
    pub(super) fn write_text(&mut self) {
        let mut text = String::new();
        for span in &self.spans {
            push_escaped(&mut text, span.name);
            if !span.fields.0.is_empty() {
                text.push('{');
                push_fields(&mut text, &span.fields);
                text.push('}');
            }
            text.push_str(": ");
        }
        push_escaped(&mut text, &self.message);
        if !self.message.is_empty() && !self.fields.0.is_empty() {
            text.push(' ');
        }
        push_fields(&mut text, &self.fields);
        text.push('\n');
        self.text = text;
    }

    /// Makes the payload smaller. Returns false if it is as small as possible.
    pub(super) fn shorten(&mut self) -> bool {
        let Some(limit) = TEXT_LIMITS_BYTES.get(self.steps) else {
            return false;
        };
        self.steps += 1;
        self.shortened = true;
        if *limit == 0 {
            self.fields.0.clear();
            self.spans.clear();
        } else {
            cut(&mut self.message, *limit);
            let in_spans = self.spans.iter_mut().map(|span| &mut span.fields);
            for fields in in_spans.chain([&mut self.fields]) {
                for (_name, value) in &mut fields.0 {
                    if let Value::String(text) = value {
                        cut(text, *limit);
                    }
                }
            }
        }
        self.write_text();
        true
    }
}

fn cut(text: &mut String, limit: usize) {
    // The note must not make the text longer.
    if text.len() > limit + 64 {
        let end = text.floor_char_boundary(limit);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&cut_note(more));
    }
}

fn push_fields(text: &mut String, fields: &Fields) {
    for (index, (name, value)) in fields.0.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        push_escaped(text, name);
        text.push('=');
        match value {
            // A plain word needs no quotes.
            Value::String(word) if is_plain(word) => text.push_str(word),
            Value::String(words) => {
                text.push('"');
                push_escaped(text, words);
                text.push('"');
            }
            // Writing to a string cannot fail.
            other => drop(write!(text, "{other}")),
        }
    }
}

fn is_plain(word: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '}';
    !word.is_empty() && word.chars().all(plain)
}

/// Escapes control characters: they could move the cursor of a terminal, or look like another line.
fn push_escaped(text: &mut String, raw: &str) {
    for c in raw.chars() {
        match c {
            '\t' => text.push('\t'),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
}
