//! The services of an installation.

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// HTTP.
    Gateway,
    /// Redis to Postgres.
    Persister,
    /// Background tasks.
    Worker,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Persister, Self::Worker];

    /// The subcommand of `runcastd`, and the name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persister => "persister",
            Self::Worker => "worker",
        }
    }

    /// What it says on stdout once it is ready.
    #[must_use]
    pub const fn ready_line(self) -> &'static str {
        match self {
            Self::Gateway => "Runcast is ready at ",
            Self::Persister => "Runcast persister is ready",
            Self::Worker => "Runcast worker is ready",
        }
    }
}
