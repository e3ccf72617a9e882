//! [`TextFinder`]: finds a text in the events of a run.
//!
//! It looks at each field of an event by itself, and at `output` and `log` as the streams that they
//! are: a text that was published in several chunks is found across them. A text is also found
//! where it stands in a JSON string within the output, with its escapes. It is compared byte by
//! byte: colours or line breaks within it make it another text.
//!
//! Memory: each place of the text, at most [`MAX_PLACES`] of about 150 bytes; and for each stream
//! the chunks whose end may be the beginning of the text. Time: linear in the bytes and the places.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem::Finder;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use serde::Deserialize;

use super::mask::{self, Edit, Field, Part, fields};

/// Places that one redaction can change: they are kept in memory.
pub(super) const MAX_PLACES: usize = 1_000_000;

/// The text occurs too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the text occurs at more than {MAX_PLACES} places: redact parts of the run, by `from` and `to`"
)]
pub(super) struct TooManyPlaces;

/// A text to look for.
#[derive(Debug)]
pub(super) struct Needle {
    raw: Finder<'static>,
    /// The text as a JSON string has it, where that is another.
    escaped: Option<Finder<'static>>,
}

impl Needle {
    pub(super) fn new(text: &[u8]) -> Self {
        // Text can always be written as JSON; what is not UTF-8 stands in no JSON string.
        let quoted = std::str::from_utf8(text).map(serde_json::to_string);
        let quoted = quoted.ok().and_then(Result::ok).unwrap_or_default();
        let escaped = quoted.get(1..quoted.len().saturating_sub(1));
        let escaped = escaped.map(str::as_bytes).filter(|form| *form != text);
        Self {
            raw: Finder::new(text).into_owned(),
            escaped: escaped.map(|form| Finder::new(form).into_owned()),
        }
    }

    fn longest(&self) -> usize {
        let escaped = self.escaped.as_ref().unwrap_or(&self.raw);
        escaped.needle().len().max(self.raw.needle().len())
    }

    /// Where either form stands.
    fn matches(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let forms = [Some(&self.raw), self.escaped.as_ref()];
        let found = forms.into_iter().flatten();
        found.flat_map(|form| positions(form, bytes)).collect()
    }

    /// Masks the text in bytes that are no event, if it stands there. In JSON only its escaped form
    /// is looked for.
    pub(super) fn masked(&self, bytes: &[u8], is_json: bool) -> Option<Vec<u8>> {
        let found: Vec<_> = match (is_json, &self.escaped) {
            (true, Some(escaped)) => positions(escaped, bytes).collect(),
            (true, None) => positions(&self.raw, bytes).collect(),
            (false, _) => self.matches(bytes),
        };
        (!found.is_empty()).then(|| mask::mask_text(bytes, &found, is_json))
    }
}

fn positions<'a>(
    form: &'a Finder<'static>,
    bytes: &'a [u8],
) -> impl Iterator<Item = Range<usize>> + 'a {
    let length = form.needle().len();
    form.find_iter(bytes).map(move |at| at..at + length)
}

/// Finds a text in events, which it is given in order.
#[derive(Debug)]
pub(super) struct TextFinder {
    needle: Needle,
    streams: HashMap<StreamName, Carry>,
    edits: BTreeMap<EventId, Vec<Part>>,
    places: usize,
}

/// Which text of a run a chunk continues.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
struct StreamName {
    #[serde(default)]
    variation: u16,
    #[serde(default)]
    stream: Option<String>,
}

/// The last chunks of a stream.
#[derive(Debug, Default)]
struct Carry {
    chunks: VecDeque<Chunk>,
    bytes: Vec<u8>,
}

/// The end of a chunk that is still looked at.
#[derive(Debug)]
struct Chunk {
    id: EventId,
    field: Field,
    /// The bytes of the chunk that are carried.
    range: Range<usize>,
}

impl TextFinder {
    /// Finds this text.
    pub(super) fn new(text: &[u8]) -> Self {
        Self {
            needle: Needle::new(text),
            streams: HashMap::new(),
            edits: BTreeMap::new(),
            places: 0,
        }
    }

    /// Looks at the next event.
    pub(super) fn add(&mut self, event: &Event) -> Result<(), TooManyPlaces> {
        for field in fields(&event.line) {
            let decoded = field.decode(&event.line).bytes;
            if field.is_chunk {
                self.add_chunk(event.id, &event.line, field, &decoded);
            } else {
                self.add_field(event.id, field, &decoded);
            }
            if self.places > MAX_PLACES {
                return Err(TooManyPlaces);
            }
        }
        Ok(())
    }

    /// What is to be masked, by event.
    pub(super) fn finish(self) -> BTreeMap<EventId, Edit> {
        let parts = self.edits.into_iter();
        parts.map(|(id, parts)| (id, Edit::Parts(parts))).collect()
    }

    fn add_field(&mut self, id: EventId, field: Field, decoded: &[u8]) {
        let ranges = self.needle.matches(decoded);
        if !ranges.is_empty() {
            self.places += ranges.len();
            self.edits
                .entry(id)
                .or_default()
                .push(Part { field, ranges });
        }
    }

    fn mask_in_chunk(&mut self, id: EventId, field: &Field, range: Range<usize>) {
        self.places += 1;
        let parts = self.edits.entry(id).or_default();
        // One part for each field: a mask changes how its field decodes. What was found in a chunk
        // before was mostly found just now.
        match parts.iter_mut().rfind(|part| part.field == *field) {
            Some(part) => part.ranges.push(range),
            None => parts.push(Part {
                field: field.clone(),
                ranges: vec![range],
            }),
        }
    }

    fn add_chunk(&mut self, id: EventId, line: &Bytes, field: Field, decoded: &[u8]) {
        // Every stored line is an object with these fields, or without them.
        let Ok(name) = serde_json::from_slice::<StreamName>(line) else {
            return;
        };
        let mut carry = self.streams.remove(&name).unwrap_or_default();
        carry.bytes.extend_from_slice(decoded);
        carry.chunks.push_back(Chunk {
            id,
            field,
            range: 0..decoded.len(),
        });
        for found in self.needle.matches(&carry.bytes) {
            let mut start = 0;
            for chunk in &carry.chunks {
                let end = start + chunk.range.len();
                let (from, until) = (found.start.max(start), found.end.min(end));
                if from < until {
                    let in_chunk = |at: usize| chunk.range.start + at - start;
                    let range = in_chunk(from)..in_chunk(until);
                    self.mask_in_chunk(chunk.id, &chunk.field, range);
                }
                start = end;
            }
        }
        carry.keep_last(self.needle.longest().saturating_sub(1));
        self.streams.insert(name, carry);
    }
}

impl Carry {
    /// Forgets all but the last bytes.
    fn keep_last(&mut self, count: usize) {
        let mut surplus = self.bytes.len().saturating_sub(count);
        self.bytes.drain(..surplus);
        while let Some(first) = self.chunks.front_mut() {
            if first.range.len() > surplus {
                first.range.start += surplus;
                break;
            }
            surplus -= first.range.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redaction::mask;
    use uuid::Uuid;

    fn redacted(text: &str, lines: &[&str]) -> Vec<String> {
        let mut finder = TextFinder::new(text.as_bytes());
        let events: Vec<Event> = (1..)
            .zip(lines)
            .map(|(seq, line)| Event {
                id: EventId::new(1, seq),
                producer: Uuid::nil(),
                producer_seq: seq,
                line: Bytes::copy_from_slice(line.as_bytes()),
            })
            .collect();
        for event in &events {
            finder.add(event).expect("few places");
        }
        let edits = finder.finish();
        let events = events.iter().map(|event| match edits.get(&event.id) {
            Some(edit) => mask::apply(&event.line, edit),
            None => event.line.to_vec(),
        });
        events
            .map(|line| String::from_utf8(line).expect("text"))
            .collect()
    }

    #[test]
    fn a_text_is_found_across_the_chunks_of_its_stream() {
        let lines = [
            r#"{"kind":"output","stream":"stdout","text":"it is hun"}"#,
            r#"{"kind":"log","stream":"stderr","text":"ter2hun"}"#,
            r#"{"kind":"output","stream":"stdout","text":"t"}"#,
            r#"{"kind":"output","variation":1,"stream":"stdout","text":"er2"}"#,
            r#"{"kind":"output","stream":"stdout","bytes":"ZXIy/w=="}"#,
        ];
        let expected = [
            r#"{"kind":"output","stream":"stdout","text":"it is ***"}"#,
            lines[1],
            r#"{"kind":"output","stream":"stdout","text":"*"}"#,
            lines[3],
            r#"{"kind":"output","stream":"stdout","bytes":"Kioq/w=="}"#,
        ];
        assert_eq!(redacted("hunter2", &lines), expected);
    }

    #[test]
    fn a_text_is_found_in_all_that_a_run_prints_and_nowhere_else() {
        for (text, line, expected) in [
            (
                r#"pa"ss"#,
                r#"{"kind":"log","message":"p pa\"ss","text":"{\"p\":\"pa\\\"ss\"}\n"}"#,
                r#"{"kind":"log","message":"p ******","text":"{\"p\":\"********\"}\n"}"#,
            ),
            (
                "4929123412341234",
                r#"{"kind":"log","card":4929123412341234,"text":""}"#,
                r#"{"kind":"log","card":0.00000000000000,"text":""}"#,
            ),
            (
                "text",
                r#"{"kind":"output","text":"context","stream":"text"}"#,
                r#"{"kind":"output","text":"con****","stream":"text"}"#,
            ),
            (
                "s3cret",
                r#"{"kind":"status","status":"running","command":["psql","-ps3cret"]}"#,
                r#"{"kind":"status","status":"running","command":["psql","-p******"]}"#,
            ),
            (
                "two\nlines",
                r#"{"kind":"output","text":"two\nlines\n"}"#,
                r#"{"kind":"output","text":"***\n*****\n"}"#,
            ),
            (
                "abab",
                r#"{"kind":"output","text":"ababab"}"#,
                r#"{"kind":"output","text":"****ab"}"#,
            ),
        ] {
            assert_eq!(redacted(text, &[line]), [expected]);
        }
    }
}
