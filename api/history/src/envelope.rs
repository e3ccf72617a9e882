//! The envelope: the fields `id`, `producer` and `seq`, which the server adds to the end of an
//! event line before it sends it.
//!
//! Readers get a line without the fields of the producer's own that have these names, or the name
//! `run`, which the server adds where it sends several runs ([`for_readers`]). So no producer can
//! pretend to be another, and no reader has to know which of two fields counts.
//!
//! The archive keeps the line as it was written ([`with_envelope`]), since its checksum is of that
//! line: there the server's fields stand at the end, and an enveloped line can be taken apart again
//! from its end.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::line_separators::push_escaped;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use crate::raw_fields::RawFields;

/// Longest envelope: an id of two numbers of 16 digits, a UUID, a seq of 20 digits, and the names.
const MAX_ENVELOPE_BYTES: usize = 160;

/// How an envelope begins.
const ID_FIELD: &[u8] = b",\"id\":\"";

/// Fields that only the server may send.
const SERVER_FIELDS: [&str; 4] = ["id", "producer", "seq", "run"];

/// What a line holds if it has a field of one of these names: the name in quotes, or a letter of it
/// as an escape.
static TRACES: LazyLock<[Finder<'static>; 6]> = LazyLock::new(|| {
    [
        "\"id\"",
        "\"producer\"",
        "\"seq\"",
        "\"run\"",
        "\\u006",
        "\\u007",
    ]
    .map(Finder::new)
});

/// Writes an event line for readers: with its envelope, without fields of the same names that the
/// producer wrote, and with the characters escaped that some readers take for the end of a line.
pub fn for_readers(out: &mut Vec<u8>, event: &Event) {
    let is_suspicious = TRACES.iter().any(|trace| trace.find(&event.line).is_some());
    let own = match is_suspicious.then(|| without_server_fields(&event.line)) {
        Some(Some(line)) => Cow::Owned(line),
        _ => Cow::Borrowed(&event.line[..]),
    };
    push_escaped(out, own.strip_suffix(b"}").unwrap_or(&own));
    push_envelope(out, event);
}

/// The line without the fields that only the server may send; none if it has no such field.
fn without_server_fields(line: &[u8]) -> Option<Vec<u8>> {
    let RawFields(fields) = serde_json::from_slice(line).ok()?;
    let is_own = |name: &String| !SERVER_FIELDS.contains(&name.as_str());
    if fields.iter().all(|(name, _)| is_own(name)) {
        return None;
    }
    let mut out = Vec::with_capacity(line.len());
    for (name, value) in fields.iter().filter(|(name, _)| is_own(name)) {
        out.push(if out.is_empty() { b'{' } else { b',' });
        // A name is text: writing it as JSON into memory cannot fail.
        serde_json::to_writer(&mut out, name).ok()?;
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    Some(out)
}

/// Writes an event line with its envelope: id, producer and seq as the last fields.
pub fn with_envelope(out: &mut Vec<u8>, event: &Event) {
    let object = event.line.strip_suffix(b"}").unwrap_or(&event.line);
    out.extend_from_slice(object);
    push_envelope(out, event);
}

fn push_envelope(out: &mut Vec<u8>, event: &Event) {
    let (id, producer, seq) = (event.id, event.producer, event.producer_seq);
    let envelope = if producer.is_nil() {
        // A gap that Runcast itself reports has no producer and no seq.
        format!(",\"id\":\"{id}\"}}")
    } else {
        format!(",\"id\":\"{id}\",\"producer\":\"{producer}\",\"seq\":{seq}}}")
    };
    out.extend_from_slice(envelope.as_bytes());
}

/// The id in an enveloped line, without parsing the rest.
pub fn event_id_of(enveloped: &[u8]) -> Option<EventId> {
    let from = enveloped.len().saturating_sub(MAX_ENVELOPE_BYTES);
    let id =
        &enveloped[from + memchr::memmem::rfind(&enveloped[from..], ID_FIELD)? + ID_FIELD.len()..];
    EventId::parse_bytes(&id[..memchr::memchr(b'"', id)?]).ok()
}

/// Takes apart what [`with_envelope`] wrote; None for anything else.
pub fn without_envelope(enveloped: &Bytes) -> Option<Event> {
    let from = enveloped.len().saturating_sub(MAX_ENVELOPE_BYTES);
    // The last one: a field of the same name from the producer stands before it.
    let at = from + memchr::memmem::rfind(&enveloped[from..], ID_FIELD)?;
    let envelope = std::str::from_utf8(&enveloped[at + ID_FIELD.len()..]).ok()?;
    let (id, rest) = envelope.split_once('"')?;
    let id: EventId = id.parse().ok()?;
    let (producer, producer_seq) = match rest {
        "}" => (Uuid::nil(), 0),
        _ => {
            let rest = rest.strip_prefix(",\"producer\":\"")?;
            let (producer, rest) = rest.split_once("\",\"seq\":")?;
            (
                producer.parse().ok()?,
                rest.strip_suffix('}')?.parse().ok()?,
            )
        }
    };
    let mut line = Vec::with_capacity(at + 1);
    line.extend_from_slice(&enveloped[..at]);
    line.push(b'}');
    Some(Event {
        id,
        producer,
        producer_seq,
        line: line.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(producer: Uuid, line: &str) -> Event {
        Event {
            id: EventId::new((1 << 53) - 1, (1 << 53) - 1),
            producer,
            producer_seq: if producer.is_nil() { 0 } else { u64::MAX },
            line: Bytes::copy_from_slice(line.as_bytes()),
        }
    }

    #[test]
    fn readers_get_the_fields_of_the_server_alone() {
        let sent = |line: &str| {
            let mut out = Vec::new();
            let (id, producer) = (EventId::new(9, 2), Uuid::nil());
            let line = Bytes::copy_from_slice(line.as_bytes());
            for_readers(
                &mut out,
                &Event {
                    id,
                    producer,
                    producer_seq: 0,
                    line,
                },
            );
            String::from_utf8(out).expect("text")
        };
        for (line, expected) in [
            (
                r#"{"kind":"log","run":"x","n":1.0}"#,
                r#"{"kind":"log","n":1.0,"id":"9-2"}"#,
            ),
            (
                r#"{"id":"1-1","kind":"log","id":7}"#,
                r#"{"kind":"log","id":"9-2"}"#,
            ),
            (
                r#"{"kind":"log","\u0072un":1,"s\u0065q":{"a":[2]}}"#,
                r#"{"kind":"log","id":"9-2"}"#,
            ),
            // Neither a value, nor a field further inside, nor a part of a text is a field.
            (
                r#"{"kind":"log","a":"id","b":{"run":1}}"#,
                r#"{"kind":"log","a":"id","b":{"run":1},"id":"9-2"}"#,
            ),
            (
                "{\"kind\":\"log\",\"text\":\"a\u{2028}b\u{85}\",\"id\":1}",
                r#"{"kind":"log","text":"a\u2028b\u0085","id":"9-2"}"#,
            ),
            (
                "{\"kind\":\"log\",\"\u{2029}\":10000000000000000001}",
                r#"{"kind":"log","\u2029":10000000000000000001,"id":"9-2"}"#,
            ),
            (
                r#"{"kind":"log","text":"\"id\":1 \u0061"}"#,
                r#"{"kind":"log","text":"\"id\":1 \u0061","id":"9-2"}"#,
            ),
        ] {
            assert_eq!(sent(line), expected);
        }
    }

    #[test]
    fn an_enveloped_line_can_be_taken_apart() {
        for producer in [Uuid::nil(), Uuid::max()] {
            for line in [
                r#"{"kind":"output","variation":0,"text":"a"}"#,
                // Fields of the same name, forged ones, and the envelope's own words within a text.
                r#"{"kind":"log","id":"1-1","producer":"x","seq":1}"#,
                r#"{"kind":"log","text":",\"id\":\"1-1\"}"}"#,
                r#"{"kind":"log","a":{"b":1,"id":"7-7"}}"#,
            ] {
                let event = event(producer, line);
                let mut enveloped = Vec::new();
                with_envelope(&mut enveloped, &event);
                assert_eq!(event_id_of(&enveloped), Some(event.id));
                assert_eq!(without_envelope(&enveloped.into()), Some(event));
            }
        }
        for text in [
            "",
            "{}",
            r#"{"id":"1-1"}"#,
            r#"{"a":1,"id":"x"}"#,
            r#"{"a":1,"id":"1-1","seq":4}"#,
        ] {
            assert_eq!(without_envelope(&Bytes::from(text)), None, "{text}");
        }
    }
}
