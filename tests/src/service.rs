//! The services of an installation.

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Serves HTTP.
    Gateway,
    /// Stores events from Redis in Postgres.
    Persister,
    /// Runs background jobs.
    Worker,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Persister, Self::Worker];

    /// Its subcommand of `runcastd`, and its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persister => "persister",
            Self::Worker => "worker",
        }
    }

    /// The start of its line on stdout when it is ready.
    pub const fn ready_line(self) -> &'static str {
        match self {
            Self::Gateway => "Runcast is ready at ",
            Self::Persister => "Runcast persister is ready",
            Self::Worker => "Runcast worker is ready",
        }
    }
}
