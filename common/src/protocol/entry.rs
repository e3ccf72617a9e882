//! A Redis Stream entry is one batch of events of one producer.
//!
//! Its Redis id is the [`EventId`] of its **last** event, so "entries after my cursor" always
//! includes every unseen event.
//!
//! | field | content |
//! |---|---|
//! | `p` | producer |
//! | `n` | producer seq of the first event |
//! | `c` | number of events |
//! | `t` | Redis TIME of the append, Unix milliseconds |
//! | `o` | body bytes of the run up to the end of this entry |
//! | `b` or `z` | body, plain or [compressed]: NDJSON, each line exactly as the producer wrote it |
//!
//! [compressed]: crate::protocol::encoding

use bytes::Bytes;
use redis::Value;
use uuid::Uuid;

use crate::protocol::encoding;
use crate::protocol::event_id::EventId;

/// One batch of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Id of the last event. The seq of the first one is `last.seq - count + 1`.
    pub last: EventId,
    /// The producer.
    pub producer: Uuid,
    /// Producer seq of the first event.
    pub producer_first: u64,
    /// Number of events, at least 1.
    pub count: u64,
    /// Redis TIME of the append, Unix milliseconds.
    pub appended_ms: u64,
    /// Event lines, each with its newline.
    pub body: Bytes,
}

/// One event of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its position in the run.
    pub id: EventId,
    /// The producer.
    pub producer: Uuid,
    /// Producer seq: with `producer` it identifies the event even after a rebirth changed its id.
    pub producer_seq: u64,
    /// The line, without its newline.
    pub line: Bytes,
}

/// An entry with missing or wrong content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable entry {id}: {reason}")]
pub struct UnreadableEntry {
    /// Its id.
    pub id: EventId,
    /// What is wrong with it.
    pub reason: String,
    /// Its fields in the format of [`Entry::from_dump`], for the dead letter.
    pub bytes: Bytes,
}

/// The reply is not a list of entries: the server speaks another protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Redis answered a stream read with something that is not a list of entries")]
pub struct NotEntries;

impl Entry {
    /// Id of the first event.
    #[must_use]
    pub const fn first(&self) -> EventId {
        EventId::new(self.last.epoch, self.last.seq + 1 - self.count)
    }

    /// Producer seq of the last event.
    #[must_use]
    pub const fn producer_last(&self) -> u64 {
        self.producer_first + self.count - 1
    }

    /// The events in order. Their lines share the bytes of the entry.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let mut at = 0;
        (0..self.count).map(move |index| {
            let length = memchr::memchr(b'\n', &self.body[at..]).unwrap_or(self.body.len() - at);
            let line = self.body.slice(at..at + length);
            at += length + 1;
            Event {
                id: EventId::new(self.last.epoch, self.first().seq + index),
                producer: self.producer,
                producer_seq: self.producer_first + index,
                line,
            }
        })
    }

    /// Parses the reply of `XRANGE`: every entry, readable or not, in order.
    pub fn parse_range(reply: Value) -> Result<Vec<Result<Self, UnreadableEntry>>, NotEntries> {
        match reply {
            Value::Nil => Ok(Vec::new()),
            Value::Array(items) => items.into_iter().map(Self::parse_item).collect(),
            _ => Err(NotEntries),
        }
    }

    /// Parses the bytes of an [`UnreadableEntry`], which an older version may have stored. Only
    /// newlines separate its fields, so the body must come last, as the append script writes it.
    ///
    /// # Errors
    /// The reason why it is still unreadable.
    pub fn from_dump(last: EventId, dump: &[u8]) -> Result<Self, String> {
        let mut fields = Vec::new();
        let mut rest = dump;
        while !rest.is_empty() {
            let is_body = match fields.last() {
                Some(Value::BulkString(name)) if fields.len() % 2 == 1 => [
                    encoding::PLAIN_FIELD.as_bytes(),
                    encoding::ZSTD_FIELD.as_bytes(),
                ]
                .contains(&name.as_slice()),
                _ => false,
            };
            let end = if is_body {
                rest.len() - 1
            } else {
                memchr::memchr(b'\n', rest).ok_or("a field has no end")?
            };
            fields.push(Value::BulkString(rest[..end].to_vec()));
            rest = &rest[end + 1..];
        }
        Self::parse_fields(last, &fields)
    }

    /// The entry that a wake-up message carries. Only small entries are carried.
    #[must_use]
    pub fn from_wakeup(message: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', message)?;
        let (id, fields) = (&message[..end], &message[end + 1..]);
        let last = EventId::parse_bytes(id).ok()?;
        Self::from_dump(last, fields).ok()
    }

    fn parse_item(item: Value) -> Result<Result<Self, UnreadableEntry>, NotEntries> {
        let Value::Array(pair) = item else {
            return Err(NotEntries);
        };
        let Ok([Value::BulkString(id), fields]) = <[Value; 2]>::try_from(pair) else {
            return Err(NotEntries);
        };
        let last = EventId::parse_bytes(&id).map_err(|_malformed| NotEntries)?;
        let fields = match fields {
            Value::Array(fields) => fields,
            // An entry that was deleted while it was pending in a consumer group.
            Value::Nil => Vec::new(),
            _ => return Err(NotEntries),
        };
        Ok(
            Self::parse_fields(last, &fields).map_err(|reason| UnreadableEntry {
                id: last,
                reason,
                bytes: dump(&fields),
            }),
        )
    }

    fn parse_fields(last: EventId, fields: &[Value]) -> Result<Self, String> {
        let producer = std::str::from_utf8(field(fields, b"p")?)
            .ok()
            .and_then(|text| Uuid::try_parse(text).ok())
            .ok_or("field p is not a producer id")?;
        let entry = Self {
            last,
            producer,
            producer_first: number(fields, b"n")?,
            count: number(fields, b"c")?,
            appended_ms: number(fields, b"t")?,
            body: body(fields)?,
        };
        if entry.count == 0 || entry.count > last.seq || entry.producer_first == 0 {
            return Err(format!("count {} does not fit its ids", entry.count));
        }
        let lines = memchr::memchr_iter(b'\n', &entry.body).count() as u64;
        if lines != entry.count || !entry.body.ends_with(b"\n") {
            return Err(format!("body holds {lines} lines, not {}", entry.count));
        }
        Ok(entry)
    }
}

fn body(fields: &[Value]) -> Result<Bytes, String> {
    match find(fields, encoding::ZSTD_FIELD.as_bytes()) {
        Some(frame) => encoding::decompress(frame).map_err(|error| error.to_string()),
        None => field(fields, encoding::PLAIN_FIELD.as_bytes()).map(Bytes::copy_from_slice),
    }
}

fn field<'a>(fields: &'a [Value], name: &[u8]) -> Result<&'a [u8], String> {
    find(fields, name).ok_or_else(|| format!("field {} is missing", String::from_utf8_lossy(name)))
}

fn find<'a>(fields: &'a [Value], name: &[u8]) -> Option<&'a [u8]> {
    fields.chunks_exact(2).find_map(|pair| match pair {
        [Value::BulkString(key), Value::BulkString(value)] if key == name => Some(value.as_slice()),
        _ => None,
    })
}

fn number(fields: &[Value], name: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(field(fields, name)?)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number < 1 << 53)
        .ok_or_else(|| format!("field {} is not a number", String::from_utf8_lossy(name)))
}

/// All field names and values in order, each with a newline.
fn dump(fields: &[Value]) -> Bytes {
    let mut out = Vec::new();
    for value in fields {
        if let Value::BulkString(bytes) = value {
            out.extend_from_slice(bytes);
        }
        out.push(b'\n');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn item(id: &str, fields: &[(&str, &str)]) -> Value {
        let flat = fields
            .iter()
            .flat_map(|(name, value)| [bulk(name), bulk(value)])
            .collect();
        Value::Array(vec![bulk(id), Value::Array(flat)])
    }

    const PRODUCER_ID: &str = "01938f5e-0000-7000-8000-000000000001";

    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("p", PRODUCER_ID),
            ("n", "41"),
            ("c", "2"),
            ("t", "9"),
            ("o", "8"),
            ("b", "{}a\n{}b\n"),
        ]
    }

    #[test]
    fn wake_up_message_carries_an_entry() {
        let message = format!("7-12\np\n{PRODUCER_ID}\nn\n41\nc\n2\nt\n9\nb\n{{}}a\n{{}}b\n\n");
        let entry = Entry::from_wakeup(message.as_bytes()).expect("an entry");
        assert_eq!((entry.last, entry.count), (EventId::new(7, 12), 2));
        assert_eq!(entry.body.as_ref(), b"{}a\n{}b\n");
        for other in ["7-12", "stored", "", "7-12\n", "stored\np\n"] {
            assert!(Entry::from_wakeup(other.as_bytes()).is_none(), "{other:?}");
        }
    }

    #[test]
    fn entry_gives_its_events_with_their_ids() {
        let parsed =
            Entry::parse_range(Value::Array(vec![item("7-12", &good())])).expect("entries");
        let entry = parsed[0].as_ref().expect("readable");
        assert_eq!(
            (entry.first(), entry.last),
            (EventId::new(7, 11), EventId::new(7, 12))
        );
        assert_eq!(entry.producer_last(), 42);
        let events: Vec<_> = entry.events().collect();
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[1].id, events[1].producer_seq),
            (EventId::new(7, 12), 42)
        );
        assert_eq!(events[0].line.as_ref(), b"{}a");
        assert_eq!(events[1].line.as_ref(), b"{}b");
    }

    #[test]
    fn compressed_body_reads_like_a_plain_one() {
        let lines = "{\"text\":\"the same again\"}\n".repeat(500);
        let packed = encoding::Body::compress(lines.as_bytes());
        assert_eq!(packed.field(), "z");
        let id = bulk("7-500");
        let mut fields: Vec<Value> = [("p", PRODUCER_ID), ("n", "1"), ("c", "500"), ("t", "9")]
            .iter()
            .flat_map(|(name, value)| [bulk(name), bulk(value)])
            .collect();
        fields.extend([bulk("z"), Value::BulkString(packed.bytes().to_vec())]);
        let mut cut = fields.clone();
        if let Some(Value::BulkString(frame)) = cut.last_mut() {
            frame.truncate(9);
        }
        let whole = Value::Array(vec![id.clone(), Value::Array(fields)]);
        let cut = Value::Array(vec![id, Value::Array(cut)]);
        let parsed = Entry::parse_range(Value::Array(vec![whole, cut])).expect("entries");
        assert_eq!(parsed[0].as_ref().expect("readable").body, lines);
        let reason = &parsed[1].as_ref().expect_err("unreadable").reason;
        assert!(reason.starts_with("compressed body"), "{reason}");
    }

    #[test]
    fn unreadable_entry_keeps_its_bytes_and_does_not_hide_others() {
        let mut bad = good();
        bad[5] = ("b", "only one\n");
        let reply = Value::Array(vec![
            item("7-12", &bad),
            item("7-14", &good()),
            item("7-15", &[("x", "y")]),
        ]);
        let parsed = Entry::parse_range(reply).expect("entries");
        let error = parsed[0].as_ref().expect_err("unreadable");
        assert_eq!(error.id, EventId::new(7, 12));
        assert!(error.bytes.ends_with(b"only one\n\n"));
        assert!(parsed[1].is_ok());
        assert_eq!(
            parsed[2].as_ref().expect_err("unreadable").reason,
            "field p is missing"
        );
    }

    #[test]
    fn dumped_entry_can_be_parsed_again() {
        let fields: Vec<Value> = good()
            .iter()
            .flat_map(|(name, value)| [bulk(name), bulk(value)])
            .collect();
        let last = EventId::new(7, 12);
        let entry = Entry::from_dump(last, &dump(&fields)).expect("readable");
        assert_eq!(Entry::parse_fields(last, &fields), Ok(entry));
        for broken in [&b"what"[..], b"\n", b"b\n\n", b"x\ny\n"] {
            Entry::from_dump(last, broken).expect_err("no entry");
        }
    }

    #[test]
    fn entry_with_inconsistent_counts_is_unreadable() {
        for (index, value) in [
            (1, "0"),
            (2, "0"),
            (2, "13"),
            (1, "x"),
            (2, "-1"),
            (0, "me"),
        ] {
            let mut fields = good();
            fields[index].1 = value;
            let parsed =
                Entry::parse_range(Value::Array(vec![item("7-12", &fields)])).expect("entries");
            assert!(parsed[0].is_err(), "{fields:?}");
        }
    }

    #[test]
    fn reply_that_is_not_a_list_of_entries_is_a_separate_error() {
        assert_eq!(Entry::parse_range(Value::Okay), Err(NotEntries));
        assert_eq!(
            Entry::parse_range(Value::Array(vec![Value::Int(3)])),
            Err(NotEntries)
        );
        assert_eq!(Entry::parse_range(Value::Nil), Ok(Vec::new()));
    }
}
