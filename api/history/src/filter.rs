//! Which events a reader wants: by channel, and logs by level.

use runcast_common::protocol::event::{Channel, Kind};

/// Which events a viewer wants; gaps always belong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    channels: Vec<Channel>,
    levels: Levels,
}

/// Levels that logs may be wanted of, as producers name them, and [`Levels`] number them.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// Some of [`LEVELS`], a bit for each; none stands for all logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels(u8);

impl Levels {
    /// The one of this name; none of them if there is no such level.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let number = LEVELS.iter().position(|level| *level == name);
        Self(number.map_or(0, |number| 1 << number))
    }

    /// True if it stands for all logs.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Filter {
    /// Only these channels; everything if there are none.
    #[must_use]
    pub const fn new(channels: Vec<Channel>) -> Self {
        Self {
            channels,
            levels: Levels(0),
        }
    }

    /// Of logs only those of these levels.
    #[must_use]
    pub fn of_levels(self, levels: Levels) -> Self {
        Self { levels, ..self }
    }

    /// The channels; empty for everything.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// True if events of this kind belong, of whatever variation.
    #[must_use]
    pub fn wants_any(&self, kind: Kind) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|channel| channel.kind == kind)
    }

    /// True if events of this kind and variation belong, whatever their level.
    #[must_use]
    pub fn wants(&self, kind: Kind, variation: u16) -> bool {
        self.channels.is_empty()
            || kind == Kind::Gap
            || self
                .channels
                .iter()
                .any(|channel| channel.contains(kind, variation))
    }

    /// Whether an event of this kind, variation and level belongs.
    #[must_use]
    pub fn takes(&self, kind: Kind, variation: u16, level: Levels) -> bool {
        let is_of_level =
            self.levels.is_empty() || kind != Kind::Log || self.levels.0 & level.0 != 0;
        is_of_level && self.wants(kind, variation)
    }

    /// Whether every event belongs.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.channels.is_empty() && self.levels.is_empty()
    }
}
