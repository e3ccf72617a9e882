//! The pool of connections to Postgres, with its time limits.
//!
//! Bounds: a process opens at most [`MAX_CONNECTIONS`]. Postgres ends a statement after
//! [`STATEMENT_TIMEOUT`], a wait for a lock after [`LOCK_TIMEOUT`] and an idle transaction after
//! [`IDLE_TRANSACTION_TIMEOUT`]. A caller waits for a connection for at most [`ACQUIRE_DEADLINE`].

use std::str::FromStr as _;

use runcast_common::config::PostgresUrl;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};

use super::error::StoreError;
use super::outage::ACQUIRE_DEADLINE;
use super::stale_sessions;

/// Longest run of one statement. History pages and ingest batches take milliseconds.
const STATEMENT_TIMEOUT: &str = "30s";

/// Longest pause between two statements of a transaction. A transaction holds row locks meanwhile:
/// if its process hangs or its host is gone, Postgres releases them after this time.
const IDLE_TRANSACTION_TIMEOUT: &str = "5s";

/// Longest wait for a row that another transaction has locked.
const LOCK_TIMEOUT: &str = "10s";

/// Connections of one process. Postgres works best with few, and all statements here are short.
const MAX_CONNECTIONS: u32 = 16;

/// A pool of connections. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// Prepares a pool, without connecting yet. Fails with [`StoreError::Address`] if the address
    /// cannot be parsed.
    pub fn new(url: &PostgresUrl, program: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url.0.expose())
            .map_err(|error| StoreError::Address {
                address: url.to_string(),
                error,
            })?
            .application_name(program)
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("lock_timeout", LOCK_TIMEOUT),
                (
                    "idle_in_transaction_session_timeout",
                    IDLE_TRANSACTION_TIMEOUT,
                ),
                ("timezone", "UTC"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_DEADLINE)
            .before_acquire(|_connection, session| {
                let is_good = stale_sessions::is_good(session.age);
                Box::pin(async move { Ok(is_good) })
            })
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Opens a connection of its own and pings the server. The error then says exactly why the
    /// server cannot be reached; the pool would only report that its wait timed out.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let options = self.pool.connect_options();
        let mut connection = PgConnection::connect_with(options.as_ref()).await?;
        connection.ping().await?;
        connection.close().await?;
        Ok(())
    }

    /// Whether Postgres accepts writes.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        // Fails on a standby, and where the session is read-only.
        let query = "UPDATE database_mark SET marked_at = marked_at WHERE false";
        sqlx::query(query).execute(&self.pool).await?;
        Ok(())
    }

    /// Number of open connections.
    pub fn connections(&self) -> u32 {
        self.pool.size()
    }

    /// Closes all connections gracefully.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Postgres has signed integers only. Ids stay below 2^53, so both directions are exact.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Replaces NUL, which text columns cannot hold.
pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
