//! Why Postgres does no work for now, as metrics and health checks name it.

use std::time::Duration;

/// Longest wait for a free or new connection. Then Postgres counts as away.
pub(crate) const ACQUIRE_DEADLINE: Duration = Duration::from_secs(3);

/// Why no statement succeeds for now. Another one may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outage {
    /// It cannot be reached, does not answer in time, or stops or starts at the moment.
    Unreachable,
    /// It refuses to write: it is a standby, or was made read-only.
    ReadOnly,
    /// It accepts no more connections, or has no memory.
    Exhausted,
    /// Its disk is full.
    DiskFull,
    /// It refuses the password, the user, the database or the rights.
    Refused,
    /// The tables are not there: the database is empty, or is being restored.
    NoTables,
    /// Another session holds a lock, or has changed the same rows.
    Locked,
}

impl Outage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::ReadOnly,
        Self::Exhausted,
        Self::DiskFull,
        Self::Refused,
        Self::NoTables,
        Self::Locked,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "postgres_unreachable",
            Self::ReadOnly => "postgres_read_only",
            Self::Exhausted => "postgres_exhausted",
            Self::DiskFull => "postgres_disk_full",
            Self::Refused => "postgres_refused",
            Self::NoTables => "postgres_no_tables",
            Self::Locked => "postgres_locked",
        }
    }

    /// What is wrong, for anybody: without addresses and names.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::ReadOnly => "read-only: it refuses to write",
            Self::Exhausted => "it accepts no more connections, or has no memory",
            Self::DiskFull => "its disk is full",
            Self::Refused => "it refuses the password, the database or the rights",
            Self::NoTables => {
                "the tables are missing: run `runcastd migrate`, or wait for the restore"
            }
            Self::Locked => "rows are locked by another session",
        }
    }

    /// The outage that an error is; none if Postgres has rejected one statement.
    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Some(Self::Unreachable),
            sqlx::Error::Database(error) => Self::of_code(&error.code()?),
            _ => None,
        }
    }

    /// The outage that a code of Postgres means.
    fn of_code(code: &str) -> Option<Self> {
        match code {
            "25006" => Some(Self::ReadOnly),
            "53100" => Some(Self::DiskFull),
            "42501" | "3D000" => Some(Self::Refused),
            "42P01" | "3F000" => Some(Self::NoTables),
            // One statement took too long, which says nothing of the others.
            "57014" => None,
            // Classes: 08 connection, 28 authorization, 40 serialization and deadlock, 53
            // resources, 55 lock not available, 57 operator intervention, 58 system error.
            code => match code.get(..2)? {
                "08" | "57" | "58" => Some(Self::Unreachable),
                "28" => Some(Self::Refused),
                "53" => Some(Self::Exhausted),
                "40" | "55" => Some(Self::Locked),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_concern_more_than_a_statement_are_outages() {
        for (code, outage) in [
            ("25006", Some(Outage::ReadOnly)),
            ("53300", Some(Outage::Exhausted)),
            ("53100", Some(Outage::DiskFull)),
            ("57P01", Some(Outage::Unreachable)),
            ("57014", None),
            ("28P01", Some(Outage::Refused)),
            ("3D000", Some(Outage::Refused)),
            ("42P01", Some(Outage::NoTables)),
            ("55P03", Some(Outage::Locked)),
            ("22001", None),
            ("", None),
        ] {
            assert_eq!(Outage::of_code(code), outage, "{code}");
        }
    }
}
