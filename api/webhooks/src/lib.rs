//! Webhooks: sends the notifications that the database has queued.
//!
//! The way of a notification, file by file: a trigger of the schema queues it; [`delivery`] claims
//! it; [`attempt`] sends it once, to an address that [`egress`] allows, with a [`signature`];
//! [`retry`] decides what follows from the answer; [`delivery`] records that. [`settings`] holds
//! what an operator may set.
//!
//! Errors: [`delivery::Deliverer`] fails only if Postgres fails or no HTTP client can be made.
//! Whatever goes wrong with a receiver is the outcome of an attempt, stored in words with the
//! delivery.

mod attempt;
pub mod delivery;
pub mod egress;
pub mod metrics;
mod retry;
pub mod settings;
pub mod signature;
