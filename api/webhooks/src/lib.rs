//! Webhooks: sends the notifications that the database has queued.
//!
//! [`delivery`] claims and retries them, [`attempt`] sends one, [`egress`] refuses addresses inside of the network,
//! [`signature`] signs.

mod attempt;
pub mod delivery;
pub mod egress;
pub mod metrics;
pub mod signature;
