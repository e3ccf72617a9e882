//! Channels: what a reader selects from a run.

use std::str::FromStr;

use super::kind::{Kind, UnknownChannel};
use crate::protocol::limits::MAX_VARIATIONS;

/// The events of one kind, of one variation or of all. Written as `output` or `output:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The kind to select.
    pub kind: Kind,
    /// The variation to select; all of them if absent.
    pub variation: Option<u16>,
}

impl Channel {
    /// Returns whether an event of this kind and variation belongs to the channel.
    #[must_use]
    pub fn contains(&self, kind: Kind, variation: u16) -> bool {
        self.kind == kind && self.variation.is_none_or(|one| one == variation)
    }
}

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        let (kind, variation) = match text.split_once(':') {
            None => (text, None),
            Some((kind, number)) => match number.parse::<u16>() {
                Ok(number) if number < MAX_VARIATIONS => (kind, Some(number)),
                _ => return Err(UnknownChannel::new(text)),
            },
        };
        let kind = kind.parse()?;
        Ok(Self { kind, variation })
    }
}
