//! Postgres, the owner of every truth; the only place with SQL.
//!
//! One file per concern: [`schema`] (migrations and their check), [`runs`], [`ingest`] (the transaction that stores
//! events and moves watermarks), [`dead_letters`], [`events`] (history), [`users`], [`identities`], [`roles`], [`tokens`]
//! and [`sessions`] with what [`audit`] and [`access_changes`] note of them, [`visible`], [`partitions`], [`retention`] and
//! [`export`], [`archives`] and [`archived_rows`], and for the worker [`leases`], [`agents`], [`queue`] and [`jobs`],
//! [`webhooks`] and their [`deliveries`]. Every statement has a server-side time limit, every wait for a connection a
//! deadline.

use std::str::FromStr as _;
use std::time::Duration;

use runcast_common::config::PostgresUrl;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};

/// Longest run of one statement; history pages and ingest batches take milliseconds.
const STATEMENT_LIMIT: &str = "30s";

/// Longest pause between two statements of a transaction, which holds rows meanwhile: after it they are free
/// for others, if the one who locked them sleeps or its host is gone.
const PAUSE_LIMIT: &str = "5s";

/// Longest time a transaction may wait for a row that another one holds.
const LOCK_LIMIT: &str = "10s";

/// Longest wait for a free or new connection.
pub(crate) const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections of one process. Postgres works best with few; everything here is short.
const MAX_CONNECTIONS: u32 = 16;

/// What went wrong with Postgres. Each text is complete by itself: none has a source to be added.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address cannot be used.
    #[error("Postgres at {address}: the address cannot be used: {error}")]
    Address {
        /// Where, without credentials.
        address: String,
        /// What is wrong with it.
        error: sqlx::Error,
    },
    /// A statement failed, or the server could not be reached.
    #[error("Postgres: {0}")]
    Database(sqlx::Error),
    /// What is stored does not have the form that this version writes.
    #[error("Postgres holds a value that this version does not understand: {0}")]
    Unexpected(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl StoreError {
    /// True if the server could not be reached or refused to work, as opposed to having refused
    /// this statement: the same call may succeed later.
    pub fn is_outage(&self) -> bool {
        let Self::Database(error) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Classes: 08 connection, 40 serialization and deadlock, 53 resources,
            // 55 lock not available, 57 operator intervention, 58 system error.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "40", "53", "55", "57", "58"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }),
            _ => false,
        }
    }
}

/// A pool of connections. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// Prepares a pool; the first connection is made when it is needed.
    ///
    /// # Errors
    /// [`StoreError::Address`] if the address cannot be used.
    pub fn new(url: &PostgresUrl, program: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url.0.expose())
            .map_err(|error| StoreError::Address {
                address: url.to_string(),
                error,
            })?
            .application_name(program)
            .options([
                ("statement_timeout", STATEMENT_LIMIT),
                ("lock_timeout", LOCK_LIMIT),
                ("idle_in_transaction_session_timeout", PAUSE_LIMIT),
                ("timezone", "UTC"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_DEADLINE)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Makes a connection of its own and asks: its error says exactly why the server cannot be
    /// reached, where the pool would only say that it waited in vain.
    ///
    /// # Errors
    /// [`StoreError`] if the server does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let options = self.pool.connect_options();
        let mut connection = PgConnection::connect_with(options.as_ref()).await?;
        connection.ping().await?;
        connection.close().await?;
        Ok(())
    }

    /// How many connections are open.
    pub fn connections(&self) -> u32 {
        self.pool.size()
    }

    /// Closes all connections, in an orderly way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Postgres counts in signed numbers; ids stay below 2^53, so both directions are exact.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The first words of a text, for columns that take no NUL.
pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
