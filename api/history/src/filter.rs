//! Which events a reader wants: by channel, and logs by level.

use runcast_common::protocol::event::{Channel, Kind};

/// Which events a reader gets. Gaps pass every filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    channels: Vec<Channel>,
    levels: Levels,
}

/// Levels by which logs can be filtered, as producers name them.
pub const LOG_LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// A set of [`LOG_LEVELS`], one bit for each. The empty set stands for all logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels(u8);

impl Levels {
    /// The set of this level; empty if no level has the name.
    pub fn named(name: &str) -> Self {
        let number = LOG_LEVELS.iter().position(|level| *level == name);
        Self(number.map_or(0, |number| 1 << number))
    }

    /// True if it stands for all logs.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The union of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Filter {
    /// Only these channels; everything if there are none.
    pub const fn new(channels: Vec<Channel>) -> Self {
        Self {
            channels,
            levels: Levels(0),
        }
    }

    /// The same, but of logs only these levels.
    pub fn with_levels(self, levels: Levels) -> Self {
        Self { levels, ..self }
    }

    /// The channels; empty for everything.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Returns whether events of this kind pass, of any variation.
    pub fn accepts_kind(&self, kind: Kind) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|channel| channel.kind == kind)
    }

    /// Returns whether events of this kind and variation pass, whatever their level.
    pub fn accepts_channel(&self, kind: Kind, variation: u16) -> bool {
        self.channels.is_empty()
            || kind == Kind::Gap
            || self
                .channels
                .iter()
                .any(|channel| channel.contains(kind, variation))
    }

    /// Returns whether an event of this kind, variation and level passes.
    pub fn accepts(&self, kind: Kind, variation: u16, level: Levels) -> bool {
        let is_of_level =
            self.levels.is_empty() || kind != Kind::Log || self.levels.0 & level.0 != 0;
        is_of_level && self.accepts_channel(kind, variation)
    }

    /// Returns whether every event passes.
    pub const fn accepts_all(&self) -> bool {
        self.channels.is_empty() && self.levels.is_empty()
    }
}
