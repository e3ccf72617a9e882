//! The persister: reads run streams from Redis and stores them in Postgres, each event exactly once.
//!
//! The way of a run: [`ready_queue`] claims it, [`schedule`] puts it in order, a [`cycle`] reads it ([`read_run`]), builds what to
//! write ([`build_batch`]), commits it, and lets Redis acknowledge and trim; [`announce`] publishes new statuses.
//! [`memory_monitor`] and [`trim_idle`] keep Redis within its [`memory_budget`].

mod announce;
pub mod build_batch;
mod cycle;
mod error;
mod memory_budget;
mod memory_monitor;
pub mod metrics;
mod persister;
pub mod read_run;
pub mod ready_queue;
mod schedule;
mod trim_idle;

pub use error::PersistError;
pub use memory_budget::MemoryBudget;
pub use persister::Persister;
