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
use crate::protocol::limits::MAX_STREAM_ENTRY_BYTES;

/// Fields of an entry at most; twice what the append script writes.
const MAX_CHECKED_FIELDS: usize = 12;

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
    /// It is above [`MAX_STREAM_ENTRY_BYTES`], so every read of it costs Redis much.
    pub is_oversized: bool,
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

    /// Parses entries as `read.lua` returns them, in order, until their bodies have `max_bytes`: a
    /// small compressed body may have a large content. Returns whether all of them were parsed.
    pub(crate) fn parse_page(
        items: Vec<Value>,
        max_bytes: usize,
    ) -> Result<(Vec<Result<Self, UnreadableEntry>>, bool), NotEntries> {
        let mut entries = Vec::with_capacity(items.len());
        let mut bytes = 0;
        for item in items {
            if bytes >= max_bytes {
                return Ok((entries, false));
            }
            let entry = Self::parse_item(item)?;
            bytes += match &entry {
                Ok(entry) => entry.body.len(),
                Err(unreadable) => unreadable.bytes.len(),
            };
            entries.push(entry);
        }
        Ok((entries, true))
    }

    /// An entry that stands behind `last`, the run's last id. If its own id is none of ours, it is
    /// filed under `last`.
    pub(crate) fn parse_foreign(item: Value, last: EventId) -> Result<UnreadableEntry, NotEntries> {
        let Value::Array(mut parts) = item else {
            return Err(NotEntries);
        };
        let Some(Value::BulkString(id)) = parts.first().cloned() else {
            return Err(NotEntries);
        };
        let filed_under = EventId::parse_bytes(&id).unwrap_or(last);
        parts[0] = Value::BulkString(filed_under.to_string().into_bytes());
        let (own_id, bytes) = match Self::parse_item(Value::Array(parts.clone()))? {
            Ok(_) => match parts.pop() {
                Some(Value::Array(fields)) => (id, dump(&fields)),
                _ => return Err(NotEntries),
            },
            Err(unreadable) => (id, unreadable.bytes),
        };
        let own_id = String::from_utf8_lossy(&own_id);
        Ok(UnreadableEntry {
            id: filed_under,
            reason: format!("entry {own_id} stands behind the last id of the run, {last}"),
            bytes,
            is_oversized: false,
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

    fn parse_item(item: Value) -> Result<Result<Self, UnreadableEntry>, NotEntries> {
        let Value::Array(pair) = item else {
            return Err(NotEntries);
        };
        let mut parts = pair.into_iter();
        let (Some(Value::BulkString(id)), Some(fields)) = (parts.next(), parts.next()) else {
            return Err(NotEntries);
        };
        let last = EventId::parse_bytes(&id).map_err(|_malformed| NotEntries)?;
        if let (Value::Int(size), Some(Value::BulkString(beginning))) = (&fields, parts.next()) {
            return Ok(Err(UnreadableEntry {
                id: last,
                reason: format!(
                    "entry of {size} bytes is over the limit of {MAX_STREAM_ENTRY_BYTES} bytes; \
                     this is its beginning"
                ),
                bytes: beginning.into(),
                is_oversized: true,
            }));
        }
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
                is_oversized: false,
            }),
        )
    }

    fn parse_fields(last: EventId, fields: &[Value]) -> Result<Self, String> {
        check_unique(fields)?;
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

/// A field that occurs twice means one thing to a reader and another to a script.
fn check_unique(fields: &[Value]) -> Result<(), String> {
    let names: Vec<&Value> = fields.iter().step_by(2).collect();
    for (index, name) in names.iter().enumerate().take(MAX_CHECKED_FIELDS) {
        if let Value::BulkString(text) = name
            && names[..index].contains(name)
        {
            let text = String::from_utf8_lossy(&text[..text.len().min(16)]);
            return Err(format!("field {text} occurs twice"));
        }
    }
    match names.len() > MAX_CHECKED_FIELDS {
        true => Err(format!("entry has {} fields", names.len())),
        false => Ok(()),
    }
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
    fn field_that_occurs_twice_makes_the_entry_unreadable() {
        let mut fields = good();
        fields.push(("c", "1"));
        let parsed =
            Entry::parse_range(Value::Array(vec![item("7-12", &fields)])).expect("entries");
        let reason = &parsed[0].as_ref().expect_err("unreadable").reason;
        assert_eq!(reason, "field c occurs twice");
        let many = vec![("x", "y"); MAX_CHECKED_FIELDS + 1];
        let parsed = Entry::parse_range(Value::Array(vec![item("7-12", &many)])).expect("entries");
        assert!(parsed[0].is_err());
    }

    #[test]
    fn page_ends_at_its_bytes_and_shows_the_beginning_of_a_huge_entry() {
        let huge = Value::Array(vec![bulk("7-12"), Value::Int(5_000_000), bulk("p\nx")]);
        let items = vec![huge, item("7-14", &good()), item("7-16", &good())];
        let (entries, is_whole) = Entry::parse_page(items.clone(), 5).expect("entries");
        assert_eq!((entries.len(), is_whole), (2, false));
        let unreadable = entries[0].as_ref().expect_err("unreadable");
        assert_eq!(unreadable.id, EventId::new(7, 12));
        assert!(unreadable.reason.contains("5000000"), "{unreadable}");
        assert_eq!(unreadable.bytes.as_ref(), b"p\nx");
        assert!(unreadable.is_oversized);
        let (entries, is_whole) = Entry::parse_page(items, usize::MAX).expect("entries");
        assert_eq!((entries.len(), is_whole), (3, true));
    }

    #[test]
    fn foreign_entry_with_an_absurd_id_is_filed_under_the_last_id() {
        let last = EventId::new(7, 10);
        for (id, filed) in [
            ("7-12", EventId::new(7, 12)),
            ("18446744073709551615-1", last),
        ] {
            let foreign = Entry::parse_foreign(item(id, &good()), last).expect("an entry");
            assert_eq!(foreign.id, filed);
            assert!(foreign.reason.contains(id), "{foreign}");
            assert!(foreign.bytes.ends_with(b"{}b\n\n"));
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
