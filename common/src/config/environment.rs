//! `RUNCAST_ENV`: how strict a program is about its settings.

use std::str::FromStr;

/// How strict to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Environment {
    /// Warns about settings that are unfit for production.
    #[default]
    Development,
    /// Refuses what could lose data or leak secrets.
    Production,
}

impl FromStr for Environment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            _ => Err("expected development or production"),
        }
    }
}
