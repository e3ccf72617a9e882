//! The envelope: the fields `id`, `producer` and `seq`, which the server adds to the end of an
//! event line before it sends it.
//!
//! At the end they win over fields of the same name, so no producer can pretend to be another. An
//! enveloped line can be taken apart again from its end: the archive keeps events in this form.

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

/// Longest envelope: an id of two numbers of 16 digits, a UUID, a seq of 20 digits, and the names.
const MAX_ENVELOPE_BYTES: usize = 160;

/// How an envelope begins.
const ID_FIELD: &[u8] = b",\"id\":\"";

/// Writes an event line with its envelope: id, producer and seq as the last fields.
pub fn with_envelope(out: &mut Vec<u8>, event: &Event) {
    let object = event.line.strip_suffix(b"}").unwrap_or(&event.line);
    out.extend_from_slice(object);
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
