//! The payload of one event, its readable text, and how it is shortened where it is too large.
//!
//! The text is one line, `span{field=value}: message field=value`, whatever the values hold: control
//! characters stand in it as escapes, as they are in `message` and `fields`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::fields::{Fields, note};

/// Bytes of each text to try, one after the other, where an event is too large; at last fields and
/// spans go as a whole.
const LIMITS: [usize; 4] = [4096, 512, 64, 0];

/// Payload of `log`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) level: &'static str,
    pub(super) target: &'a str,
    pub(super) message: String,
    pub(super) fields: Fields,
    pub(super) spans: Vec<Span>,
    /// True if something of it was left out because the event was too large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) shortened: bool,
    pub(super) text: String,
    /// How often it was shortened.
    #[serde(skip)]
    pub(super) steps: usize,
}

/// A span around the event.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) fields: Fields,
}

impl Line<'_> {
    /// Writes the text from everything else.
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

    /// Makes it smaller; false if it is as small as it gets.
    pub(super) fn shorten(&mut self) -> bool {
        let Some(limit) = LIMITS.get(self.steps) else {
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
    // The note itself must not make it longer.
    if text.len() > limit + 64 {
        let kept = text.floor_char_boundary(limit);
        let more = text.len() - kept;
        text.truncate(kept);
        text.push_str(&note(more));
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
            // A plain word is shown as it is.
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

/// Control characters could move the cursor of a terminal, or look like another line.
fn push_escaped(text: &mut String, raw: &str) {
    for c in raw.chars() {
        match c {
            '\t' => text.push('\t'),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
}
