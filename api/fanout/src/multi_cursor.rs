//! The cursor of a viewer of several runs: how far it has got in each, as one SSE id.
//!
//! Format: `w`, then unpadded URL-safe base64 of the version byte 1 and, for each run that has
//! begun,
//!
//! - the last four bytes of the run's id, which are random;
//! - the cursor's epoch, in milliseconds since the run's id was made, as a zigzag varint;
//! - the cursor's seq, as a varint (seven bits a byte, least significant first).
//!
//! That is about ten bytes per run. Clients treat it as opaque. Which runs it belongs to follows
//! from the URL of the request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

/// Distinguishes it from an event id.
const CURSOR_PREFIX: char = 'w';

/// The version of the format above.
const FORMAT_VERSION: u8 = 1;

/// Bytes of a run's id that a cursor holds.
const TAG_BYTES: usize = 4;

/// A text that is not such a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor from the id of an event of `/v1/watch`")]
pub struct InvalidMultiCursor;

/// How far a viewer has got in each of several runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiCursor(Vec<([u8; TAG_BYTES], i64, u64)>);

impl MultiCursor {
    /// Parses what [`encode`] wrote.
    pub fn parse(text: &str) -> Result<Self, InvalidMultiCursor> {
        let text = text.strip_prefix(CURSOR_PREFIX).ok_or(InvalidMultiCursor)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_no_base64| InvalidMultiCursor)?;
        let (version, mut rest) = bytes.split_first().ok_or(InvalidMultiCursor)?;
        if *version != FORMAT_VERSION {
            return Err(InvalidMultiCursor);
        }
        let mut cursors = Vec::new();
        while !rest.is_empty() {
            let (tag, behind) = rest.split_first_chunk().ok_or(InvalidMultiCursor)?;
            rest = behind;
            let zigzag = read_varint(&mut rest)?;
            let seq = read_varint(&mut rest)?;
            cursors.push((
                *tag,
                (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed(),
                seq,
            ));
        }
        Ok(Self(cursors))
    }

    /// The cursor of this run, or its beginning if the viewer has not begun it.
    pub fn of(&self, run: Uuid) -> EventId {
        self.get(run).unwrap_or(EventId::ZERO)
    }

    /// The cursor of this run, if the viewer has begun it.
    pub fn get(&self, run: Uuid) -> Option<EventId> {
        let (_, after, seq) = self.0.iter().find(|(tag, _, _)| *tag == tag_of(run))?;
        let epoch = created_ms(run).checked_add_signed(*after)?;
        Some(EventId::new(epoch, *seq))
    }
}

/// The SSE id for these cursors.
pub fn encode(cursors: impl Iterator<Item = (Uuid, EventId)>) -> String {
    let mut bytes = vec![FORMAT_VERSION];
    for (run, cursor) in cursors.filter(|(_, cursor)| *cursor != EventId::ZERO) {
        bytes.extend_from_slice(&tag_of(run));
        let after = cursor.epoch.wrapping_sub(created_ms(run)).cast_signed();
        write_varint(&mut bytes, ((after << 1) ^ (after >> 63)).cast_unsigned());
        write_varint(&mut bytes, cursor.seq);
    }
    format!("{CURSOR_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn tag_of(run: Uuid) -> [u8; TAG_BYTES] {
    let [.., a, b, c, d] = *run.as_bytes();
    [a, b, c, d]
}

/// When a run was created, in Unix milliseconds: the first six bytes of a UUIDv7.
fn created_ms(run: Uuid) -> u64 {
    let [a, b, c, d, e, f, ..] = *run.as_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, InvalidMultiCursor> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(InvalidMultiCursor)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(InvalidMultiCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_a_round_trip() {
        let runs: Vec<Uuid> = (0..64).map(|_| Uuid::now_v7()).collect();
        let cursor = |at: usize| match at {
            0 => EventId::ZERO,
            1 => EventId::new(created_ms(runs[1]) - 5_000, 1),
            _ => EventId::new(created_ms(runs[at]) + 3, 1 << at.min(52)),
        };
        let cursors = runs.iter().enumerate().map(|(at, run)| (*run, cursor(at)));
        let text = encode(cursors);
        assert!(text.is_ascii() && text.len() < 64 * 20, "{text}");
        let read = MultiCursor::parse(&text).expect("cursors");
        for (at, run) in runs.iter().enumerate() {
            assert_eq!(read.of(*run), cursor(at), "{at}");
        }
        assert_eq!(read.get(runs[0]), None);
        assert_eq!(
            MultiCursor::parse(&encode(std::iter::empty())),
            Ok(MultiCursor::default())
        );
    }

    #[test]
    fn invalid_cursors_are_refused() {
        let whole = encode([(Uuid::now_v7(), EventId::new(1 << 40, 300))].into_iter());
        for end in 1..whole.len() - 1 {
            let cut = &whole[..end];
            assert!(
                MultiCursor::parse(cut) != MultiCursor::parse(&whole),
                "{cut} is not {whole}"
            );
        }
        for text in [
            "",
            "w",
            "1-2",
            "wAg",
            "w!",
            "wAQ==",
            "wAf____________________________",
        ] {
            assert_eq!(MultiCursor::parse(text), Err(InvalidMultiCursor), "{text}");
        }
    }
}
