//! Event ids: the position of an event in its run.
//!
//! An id is `<epoch>-<seq>`, two unsigned decimal numbers. Within an epoch the events of a run are
//! numbered from 1 without gaps, so every reader can detect a missing one. Ids are totally ordered.
//! One id resumes all channels of a run: it is the SSE `id:`, the Postgres key and the Redis entry
//! id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The position of an event in its run. Ordered by epoch, then by seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Redis TIME in milliseconds when the stream was created; larger after every rebirth.
    pub epoch: u64,
    /// Position within the epoch, from 1 without gaps.
    pub seq: u64,
}

/// Both parts are below this: Postgres stores them as `bigint`, and Lua numbers are exact up to
/// 2^53.
const MAX_ID_PART: u64 = 1 << 53;

/// The text is not an event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "malformed event id: expected <epoch>-<seq>, two decimal numbers below 2^53, such as 1763700000000-17"
)]
pub struct MalformedId;

impl EventId {
    /// Before the first event of any run: the cursor of a new reader.
    pub const ZERO: Self = Self { epoch: 0, seq: 0 };

    /// The id `<epoch>-<seq>`.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// The next id in the same epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.epoch, self.seq + 1)
    }

    /// The cursor of a reader that has everything before this id.
    #[must_use]
    pub const fn cursor_before(self) -> Self {
        Self::new(self.epoch, self.seq.saturating_sub(1))
    }

    /// Parses a cursor as readers send it: an event id, or the padded form
    /// `<16 digits>_<16 digits>` that sorts as text. Anything else is an error, because a malformed
    /// cursor must never cause a replay from the start.
    pub fn parse_cursor(text: &str) -> Result<Self, MalformedId> {
        match text.split_once('_') {
            Some((epoch, seq)) if epoch.len() == 16 && seq.len() == 16 => {
                Ok(Self::new(parse_part(epoch)?, parse_part(seq)?))
            }
            Some(_) => Err(MalformedId),
            None => text.parse(),
        }
    }

    /// Parses the bytes of a Redis entry id.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, MalformedId> {
        std::str::from_utf8(bytes)
            .map_err(|_not_utf8| MalformedId)?
            .parse()
    }
}

fn parse_part(text: &str) -> Result<u64, MalformedId> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_digits && number < MAX_ID_PART => Ok(number),
        _ => Err(MalformedId),
    }
}

impl FromStr for EventId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let (epoch, seq) = text.split_once('-').ok_or(MalformedId)?;
        Ok(Self::new(parse_part(epoch)?, parse_part(seq)?))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_epoch_then_seq() {
        assert!(EventId::new(1, 9) < EventId::new(1, 10));
        assert!(EventId::new(1, 10) < EventId::new(2, 1));
    }

    #[test]
    fn cursors_are_parsed_in_both_forms() {
        let id = EventId::new(1_763_700_000_000, 17);
        assert_eq!(EventId::parse_cursor("1763700000000-17"), Ok(id));
        assert_eq!(
            EventId::parse_cursor("0001763700000000_0000000000000017"),
            Ok(id)
        );
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_malformed() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-1",
            "1-+1",
            "1-1-1",
            " 1-1",
            "1_1",
            "1-1\n",
            "$",
            "0x1-1",
            "99999999999999999999-1",
            "9007199254740992-1",
        ] {
            assert_eq!(EventId::parse_cursor(text), Err(MalformedId), "{text:?}");
        }
    }
}
