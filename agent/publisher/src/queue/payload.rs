//! Payloads that only the publisher writes, and the cutting of text into chunks that fit an event.

use std::borrow::Cow;

use runcast_common::protocol::limits::MAX_CHUNK_BYTES;
use serde::ser::{Error as _, SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};

/// Payload of `log` for a line of text, or a part of one.
pub(crate) struct LogLine<'a> {
    pub(crate) level: &'a str,
    pub(crate) text: &'a str,
    /// The line ends here, so a newline is added.
    pub(crate) finished: bool,
}

impl Serialize for LogLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match self.finished && !self.text.ends_with('\n') {
            true => Cow::Owned(format!("{}\n", self.text)),
            false => Cow::Borrowed(self.text),
        };
        let mut line = serializer.serialize_struct("LogLine", 2)?;
        line.serialize_field("level", self.level)?;
        line.serialize_field("text", &text)?;
        line.end()
    }
}

/// Payload of `metric`: `{"values":{name:number}}`.
pub(crate) struct Metric<'a>(pub(crate) &'a [(&'a str, f64)]);

struct MetricValues<'a>(&'a [(&'a str, f64)]);

impl Serialize for Metric<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut metric = serializer.serialize_struct("Metric", 1)?;
        metric.serialize_field("values", &MetricValues(self.0))?;
        metric.end()
    }
}

impl Serialize for MetricValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            // JSON cannot express these numbers.
            if !value.is_finite() {
                return Err(S::Error::custom(format_args!("{name} is not finite")));
            }
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Number of bytes at the end of `text` that begin a UTF-8 character without completing it: 0 to 3.
pub fn incomplete_tail(text: &[u8]) -> usize {
    for length in 1..=text.len().min(3) {
        let tail = &text[text.len() - length..];
        match tail[0] {
            // A continuation byte: the first byte of the character is further ahead.
            0x80..=0xbf => {}
            0xc0.. => {
                let unfinished = std::str::from_utf8(tail)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
                return if unfinished { length } else { 0 };
            }
            _ => return 0,
        }
    }
    0
}

/// How many bytes of `text` go into one chunk: as many as fit, without splitting a character if the
/// text is valid UTF-8 there.
pub fn chunk_length(text: &[u8]) -> usize {
    if text.len() <= MAX_CHUNK_BYTES {
        return text.len();
    }
    MAX_CHUNK_BYTES - incomplete_tail(&text[..MAX_CHUNK_BYTES])
}

/// Splits the text into chunks that fit an event each; an empty text gives one empty chunk.
pub(crate) fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let (chunk, more) = text.split_at(chunk_length(text.as_bytes()));
        rest = (!more.is_empty()).then_some(more);
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_incomplete_character_counts_as_incomplete() {
        for (text, expected) in [
            (&b""[..], 0),
            (b"a", 0),
            ("aé".as_bytes(), 0),
            (&"é".as_bytes()[..1], 1),
            (&"a€".as_bytes()[..2], 1),
            (&"a€".as_bytes()[..3], 2),
            (&"a😀".as_bytes()[..4], 3),
            ("😀".as_bytes(), 0),
            (b"\xff", 0),
            (b"\x80\x80\x80\x80", 0),
            (b"\xe2\x28", 0),
            (b"\xc0", 0),
            (b"\xe0\x80", 0),
        ] {
            assert_eq!(incomplete_tail(text), expected, "{text:x?}");
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        let text = format!("{}€{}", "x".repeat(MAX_CHUNK_BYTES - 1), "y".repeat(10));
        let cut: Vec<&str> = chunks(&text).collect();
        assert_eq!(cut.concat(), text);
        assert_eq!(cut[0].len(), MAX_CHUNK_BYTES - 1);
        assert_eq!(cut.len(), 2);
        assert_eq!(chunks("").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn a_metric_is_an_object_of_finite_numbers() {
        let written = serde_json::to_string(&Metric(&[("tokens", 3.0), ("cost", 0.5)]));
        assert_eq!(
            written.expect("JSON"),
            r#"{"values":{"tokens":3.0,"cost":0.5}}"#
        );
        serde_json::to_string(&Metric(&[("x", f64::NAN)])).expect_err("not a number");
    }

    #[test]
    fn a_log_line_gets_exactly_one_newline() {
        for text in ["a", "a\n"] {
            let line = LogLine {
                level: "info",
                text,
                finished: true,
            };
            assert_eq!(
                serde_json::to_string(&line).expect("JSON"),
                r#"{"level":"info","text":"a\n"}"#
            );
        }
    }
}
