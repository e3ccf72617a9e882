//! Postgres, the owner of every truth; the only crate with SQL.
//!
//! One file for each concern. [`schema`]: migrations and their check. [`runs`], [`agents`], [`run_updates`]. [`ingest`]: the
//! transaction that stores events and moves watermarks; [`copy_rows`] writes its rows. [`events`]: history.
//! [`dead_letters`]. [`users`], [`identities`], [`roles`], [`tokens`] and [`sessions`], with [`audit`] and
//! [`access_outbox`], which record their changes, and [`visibility`]. [`partitions`], [`retention`], [`archives`] and
//! [`archive_cleanup`], [`export`]. For the worker [`leases`], [`job_queue`] and [`job_status`]; [`webhooks`] and
//! [`webhook_deliveries`]. Every statement has a time limit on the server, every wait for a connection a deadline.

pub mod access_outbox;
pub mod agents;
pub mod archive_cleanup;
pub mod archives;
pub mod audit;
pub mod copy_rows;
pub mod dead_letters;
pub mod events;
pub mod export;
mod from_row;
pub mod identities;
pub mod ingest;
pub mod job_queue;
pub mod job_status;
pub mod leases;
pub mod partitions;
pub mod retention;
pub mod roles;
mod run_updates;
pub mod runs;
pub mod schema;
pub mod sessions;
mod store;
pub mod tokens;
pub mod users;
pub mod visibility;
pub mod webhook_deliveries;
pub mod webhooks;

pub use store::{Store, StoreError};
