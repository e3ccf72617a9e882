//! What a stream misses while Redis, Postgres or the archive cannot be read: the data of a
//! `degraded` notice.

use runcast_history::archive::reader::ArchiveReadError;
use runcast_history::reader::ReadError;

/// The outage that viewers of a run are told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Degraded {
    /// `redis`, `postgres` or `archive`.
    pub(crate) what: &'static str,
    /// The same in words, for a person.
    pub(crate) message: &'static str,
}

impl Degraded {
    /// Redis is down: new events only come out of Postgres.
    pub(crate) const REDIS_DOWN: Self = Self {
        what: "redis",
        message: "Redis cannot be reached: new events appear as they are stored",
    };

    const POSTGRES_DOWN: Self = Self {
        what: "postgres",
        message: "Postgres cannot be reached: older events are delayed",
    };

    const ARCHIVE_DOWN: Self = Self {
        what: "archive",
        message: "The archive cannot be reached: older events are delayed",
    };

    const ARCHIVE_DAMAGED: Self = Self {
        what: "archive",
        message: "The archive of this run is damaged: later events cannot be read until it is repaired",
    };
}

impl From<&ReadError> for Degraded {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Archive(ArchiveReadError::Store(_)) => Self::POSTGRES_DOWN,
            ReadError::Archive(error) if error.is_outage() => Self::ARCHIVE_DOWN,
            ReadError::Archive(_) => Self::ARCHIVE_DAMAGED,
            ReadError::Store(_) => Self::POSTGRES_DOWN,
        }
    }
}
