//! The errors of this crate. The text of each is complete: no error has a source whose text a
//! program must add.

use sqlx::migrate::MigrateError;

use super::outage::{ACQUIRE_DEADLINE, Outage};
use super::stale_sessions;

/// Why a call to Postgres failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configured address cannot be parsed.
    #[error("Postgres at {address}: the address cannot be used: {error}")]
    Address {
        /// The address without credentials.
        address: String,
        /// What is wrong with it.
        error: sqlx::Error,
    },
    /// A statement failed, or the server could not be reached.
    #[error("Postgres: {}", describe(.0))]
    Database(sqlx::Error),
    /// A stored value does not have the form that this version writes.
    #[error("Postgres holds a value that this version does not understand: {0}")]
    Unexpected(String),
}

/// An error in words: the library says of a server that is away that its pool timed out.
fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => format!(
            "no connection within {} s: it is away, refuses connections, or all connections of this \
             process are in use",
            ACQUIRE_DEADLINE.as_secs()
        ),
        error => error.to_string(),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // The session may be that of a server which was replaced meanwhile.
        if let Some(Outage::ReadOnly | Outage::Refused) = Outage::of(&error) {
            stale_sessions::suspect();
        }
        Self::Database(error)
    }
}

impl StoreError {
    /// True if the server could not be reached or could not work, false if it rejected this
    /// statement. After an outage the same call may succeed.
    pub fn is_outage(&self) -> bool {
        self.outage().is_some()
    }

    /// Why the server could not work; none if it rejected this statement.
    pub fn outage(&self) -> Option<Outage> {
        match self {
            Self::Database(error) => Outage::of(error),
            Self::Address { .. } | Self::Unexpected(_) => None,
        }
    }
}

/// Why a program cannot use a database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The program was built with other migrations than the database has.
    #[error(
        "the database schema does not fit this program\n  expected: {expected}\n  actual:   {actual}\n  {hint}"
    )]
    Mismatch {
        /// The migrations of this program.
        expected: String,
        /// The migrations of the database.
        actual: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A later program has migrated the database; this one cannot.
    #[error(
        "the database has schema {database}, and this program knows none beyond {program}: migrate \
         with the program that made it, or leave it as it is"
    )]
    Newer {
        /// The version of the database.
        database: i64,
        /// The version of this program.
        program: i64,
    },
    /// A migration of the job library's schema failed.
    #[error("cannot migrate the schema of background jobs: {0}")]
    Tasks(String),
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migrate(MigrateError),
    /// The database could not be queried.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a user cannot be created or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Another user has this name.
    #[error("the name {0} is taken, in this or another case")]
    NameTaken(String),
    /// Another user has this email.
    #[error("there is a user with the email {0} already")]
    EmailTaken(String),
    /// The name has a form that names cannot have.
    #[error(
        "name {0:?}: expected 1 to 64 letters, digits and . _ - of ASCII, a letter or digit first"
    )]
    Name(String),
    /// The email has a form that addresses cannot have.
    #[error("email {0:?}: expected an address such as ada@example.com of at most 254 characters")]
    Email(String),
    /// The role does not exist.
    #[error("there is no role {0}")]
    Role(String),
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for UserError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why a role cannot be created or changed.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// A role of this name exists.
    #[error("there is a role {0} already")]
    Taken(String),
    /// The name has a form that names cannot have.
    #[error(
        "role {0:?}: expected 1 to 64 small letters, digits and . _ -, a letter or digit first"
    )]
    Name(String),
    /// Built-in roles cannot be changed.
    #[error("the role {0} is built in and cannot be changed: create a role of your own instead")]
    BuiltIn(String),
    /// The role does not exist.
    #[error("there is no role {0}")]
    Unknown(String),
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RoleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
