//! An event line as everybody is shown it: the producer's own line, with `id`, `producer` and `seq` added at
//! its end.
//!
//! There they win over fields of the same name, so no producer can claim to be another. What is shown can be
//! taken apart again, from its end: the archive keeps events as they are shown.

use bytes::Bytes;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

/// Longest envelope: an id of two 16 digit numbers, a UUID, a seq of 20 digits, and their names.
const MAX_ENVELOPE_BYTES: usize = 160;

/// What an envelope begins with.
const ID: &[u8] = b",\"id\":\"";

/// Writes an event line with its envelope: id, producer and seq as the last fields.
pub fn with_envelope(out: &mut Vec<u8>, event: &Event) {
    let object = event.line.strip_suffix(b"}").unwrap_or(&event.line);
    out.extend_from_slice(object);
    let (id, producer, seq) = (event.id, event.producer, event.producer_seq);
    let envelope = if producer.is_nil() {
        // Runcast's own note about a hole: no producer, hence nothing to know it again by but its id.
        format!(",\"id\":\"{id}\"}}")
    } else {
        format!(",\"id\":\"{id}\",\"producer\":\"{producer}\",\"seq\":{seq}}}")
    };
    out.extend_from_slice(envelope.as_bytes());
}

/// The id of an event as it is shown, without a look at the rest.
#[must_use]
pub fn shown_id(shown: &[u8]) -> Option<EventId> {
    let from = shown.len().saturating_sub(MAX_ENVELOPE_BYTES);
    let id = &shown[from + memchr::memmem::rfind(&shown[from..], ID)? + ID.len()..];
    EventId::parse_bytes(&id[..memchr::memchr(b'"', id)?]).ok()
}

/// Takes apart what [`with_envelope`] wrote; none if it is something else.
#[must_use]
pub fn without_envelope(shown: &Bytes) -> Option<Event> {
    let from = shown.len().saturating_sub(MAX_ENVELOPE_BYTES);
    // The last one: whatever the producer wrote of the same name stands before it.
    let at = from + memchr::memmem::rfind(&shown[from..], ID)?;
    let envelope = std::str::from_utf8(&shown[at + ID.len()..]).ok()?;
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
    line.extend_from_slice(&shown[..at]);
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
    fn what_is_shown_can_be_taken_apart_again() {
        for producer in [Uuid::nil(), Uuid::max()] {
            for line in [
                r#"{"kind":"output","variation":0,"text":"a"}"#,
                // Fields of the same name, forged ones, and the envelope's own words within a text.
                r#"{"kind":"log","id":"1-1","producer":"x","seq":1}"#,
                r#"{"kind":"log","text":",\"id\":\"1-1\"}"}"#,
                r#"{"kind":"log","a":{"b":1,"id":"7-7"}}"#,
            ] {
                let event = event(producer, line);
                let mut shown = Vec::new();
                with_envelope(&mut shown, &event);
                assert_eq!(shown_id(&shown), Some(event.id));
                assert_eq!(without_envelope(&shown.into()), Some(event));
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
