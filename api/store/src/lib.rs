//! Postgres, the source of truth for everything that Runcast keeps. No other crate contains SQL.
//!
//! The way of the data through this crate, file by file:
//! - [`run_states`] says how far runs are stored.
//! - [`ingest`] is the transaction that stores events and advances watermarks. [`copy_rows`]
//!   encodes its rows for COPY, and [`dead_letters`] keeps what was no event.
//! - [`runs`] creates and lists runs. [`agents`] records which agents are alive, stale or lost.
//!   `run_updates` collects, within a transaction, what it has to announce.
//! - [`events`] reads stored events by cursor. [`archives`] tracks the objects that hold archived
//!   events, and [`archive_cleanup`] deletes the rows that these objects replace. [`partitions`]
//!   creates the daily partitions, [`retention`] removes old runs, [`deletion`] single ones, unless
//!   [`holds`] keep them, [`export`] reads a snapshot. [`restored`] finds that the database was
//!   restored to an older state.
//! - [`users`], [`identities`], [`roles`], [`tokens`], [`run_tokens`] and [`sessions`] hold who may
//!   do what.
//!   [`audit`] records their changes. [`access_outbox`] lists the changes for which gateways must
//!   delete copies in Redis. [`visibility`] restricts lists to the runs that a caller may see.
//! - For the worker: [`leases`], [`job_queue`] and [`job_status`], [`webhooks`] and
//!   [`webhook_deliveries`].
//! - `store` holds the pool and its time limits, `stale_sessions` which of its sessions are no
//!   good, `outage` why Postgres does no work, [`schema`] the migrations and their check,
//!   `from_row` the mapping of rows to structs.
//!
//! Errors: every call fails with [`StoreError`], or with an error that contains it
//! ([`schema::SchemaError`], [`users::UserError`], [`roles::RoleError`]). [`StoreError::is_outage`]
//! says whether a retry can help. A call that fails writes nothing, because it is one statement or
//! one transaction; only if the connection breaks during the commit may everything be written.
//! Calls that work in batches keep the batches that they committed, and the next call continues;
//! their docs say so.
//!
//! Time limits: Postgres limits each statement, each wait for a lock and each pause within a
//! transaction. The pool limits the wait for a connection.

pub mod access_outbox;
pub mod agents;
pub mod archive_cleanup;
pub mod archives;
pub mod audit;
pub mod copy_rows;
pub mod dead_letters;
pub mod deletion;
mod error;
pub mod events;
pub mod export;
mod from_row;
pub mod holds;
pub mod identities;
pub mod ingest;
pub mod job_queue;
pub mod job_status;
pub mod leases;
mod outage;
pub mod partitions;
pub mod redactions;
pub mod restored;
pub mod retention;
pub mod roles;
pub mod run_states;
pub mod run_tokens;
mod run_updates;
pub mod runs;
pub mod schema;
pub mod sessions;
mod stale_sessions;
mod store;
pub mod tokens;
pub mod users;
pub mod visibility;
pub mod webhook_deliveries;
pub mod webhooks;

pub use error::StoreError;
pub use outage::Outage;
pub use store::Store;
