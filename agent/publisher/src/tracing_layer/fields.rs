//! The fields of an event or a span, as JSON values.
//!
//! Bounds: [`MAX_VALUE_BYTES`] of one text, however much `Debug` would write, and
//! [`MAX_ERROR_SOURCES`] of an error. A text is redacted before anything else uses it. A text that
//! was cut is redacted like a stream that ended, so that no part of a secret stays at its end.

use std::error::Error;
use std::fmt::{self, Write as _};

use runcast_redact::Redactor;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;
use tracing::field::{Field, Visit};

/// Longest text of a field or message.
pub(super) const MAX_VALUE_BYTES: usize = 32 * 1024;

/// Sources of an error that are written: enough for any real chain, and an end for a cyclic one.
const MAX_ERROR_SOURCES: usize = 32;

/// Named values in the order in which they were recorded. Each name occurs once, with its newest
/// value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Value)>);

impl Fields {
    pub(super) fn insert(&mut self, name: &'static str, value: Value) {
        match self
            .0
            .iter_mut()
            .find(|(existing, _value)| *existing == name)
        {
            Some((_name, existing)) => *existing = value,
            None => self.0.push((name, value)),
        }
    }

    pub(super) fn extend(&mut self, newer: Self) {
        for (name, value) in newer.0 {
            self.insert(name, value);
        }
    }

    /// Removes what the bridge from the `log` crate adds, and returns the target of the log line.
    pub(super) fn take_logged_target(&mut self) -> Option<String> {
        let at = self.0.iter().position(|(name, _)| *name == "log.target")?;
        let (_name, target) = self.0.swap_remove(at);
        self.0.retain(|(name, _value)| !name.starts_with("log."));
        Some(target.as_str()?.to_owned())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Reads the fields of an event or a span.
pub(super) struct FieldVisitor<'a> {
    redactor: Option<&'a Redactor>,
    /// The field `message`.
    pub(super) message: String,
    /// All other fields.
    pub(super) fields: Fields,
}

impl<'a> FieldVisitor<'a> {
    pub(super) const fn new(redactor: Option<&'a Redactor>) -> Self {
        Self {
            redactor,
            message: String::new(),
            fields: Fields(Vec::new()),
        }
    }

    fn text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        let mut bounded = BoundedText::default();
        if bounded.write_fmt(text).is_err() {
            // Only what this value could not format is missing from the event.
            bounded.text.push_str("[not formatted: its own error]");
        }
        let text = bounded.redacted(self.redactor);
        match field.name() {
            "message" => self.message = text,
            name => self.fields.insert(name, Value::String(text)),
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.to_string(),
            name => self.fields.insert(name, value),
        }
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.value(field, Value::Number(number)),
            // JSON cannot express it as a number.
            None => self.text(field, format_args!("{value}")),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value.into());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.value(field, value.into()),
            Err(_too_large) => self.text(field, format_args!("{value}")),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.value(field, value.into()),
            Err(_too_large) => self.text(field, format_args!("{value}")),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, format_args!("{}", ErrorChain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// An error with its sources: `the cart is closed: no answer: timed out`.
struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        for _ in 0..MAX_ERROR_SOURCES {
            let Some(source) = next else { break };
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

/// Keeps the beginning of what is written, and counts the other bytes.
#[derive(Default)]
struct BoundedText {
    text: String,
    cut_bytes: usize,
}

impl BoundedText {
    fn redacted(self, redactor: Option<&Redactor>) -> String {
        let mut text = match redactor {
            None => self.text,
            Some(redactor) if self.cut_bytes == 0 => redactor.text(&self.text).into_owned(),
            Some(redactor) => {
                let mut out = Vec::with_capacity(self.text.len());
                let mut stream = redactor.stream();
                stream.push(self.text.as_bytes(), Instant::now(), &mut out);
                stream.finish(&mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
        };
        if self.cut_bytes > 0 {
            text.push_str(&cut_note(self.cut_bytes));
        }
        text
    }
}

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = match self.cut_bytes {
            0 => MAX_VALUE_BYTES - self.text.len(),
            _ => 0,
        };
        let end = text.floor_char_boundary(room.min(text.len()));
        self.text.push_str(&text[..end]);
        self.cut_bytes += text.len() - end;
        Ok(())
    }
}

/// The note in place of so many bytes.
pub(super) fn cut_note(bytes: usize) -> String {
    format!("… [{bytes} bytes more]")
}
