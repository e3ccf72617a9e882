//! The persister reads run streams from Redis and stores them in Postgres, each event exactly once.
//!
//! The way of an event through this crate, file by file:
//! 1. [`ready_queue`] claims runs with unstored events ([`ready_entries`] parses Redis' replies).
//! 2. [`dispatch`] orders the claimed runs in a [`schedule`] and starts a cycle for the first ones.
//! 3. [`cycle`] lists the steps of a cycle, and repeats them while Redis or Postgres is down:
//!    - [`read_batch`] reads what the runs hold beyond their watermarks, each with [`read_run`];
//!    - [`commit`] builds rows from the entries ([`build_batch`]) and stores them in one
//!      transaction;
//!    - [`settle`] lets Redis acknowledge and trim what is stored, and wake viewers and producers;
//!    - [`announce`] publishes status changes.
//!
//! [`persister`] wires these parts together. Beside them, [`memory_monitor`] measures what waits in
//! Redis and keeps Redis within its [`memory_budget`], also by [`trim_idle`]; [`ready_guard`] keeps
//! the ready queue free of what no script of ours has written, and [`woken_runs`] queues the runs
//! whose agents may not write to the queue.
//!
//! Errors: what calls Redis or Postgres fails with [`error::PersistError`], or with `RedisFailure`
//! where it calls Redis alone. A failure never stops the persister. During an outage it repeats the
//! cycle with a backoff. A run that cannot be stored for another reason is logged, keeps its ready
//! entry, and does not delay other runs.
//!
//! A publisher's Redis user may run commands of its own. So the bytes of a stream, of its meta and
//! of the ready queue are never trusted: what cannot be read becomes a dead letter and a gap, what
//! cannot be right is repaired ([`settle`]), and all of it is counted.

mod announce;
mod build_batch;
mod commit;
mod cycle;
mod dispatch;
mod error;
mod memory_budget;
mod memory_monitor;
pub mod metrics;
mod persister;
mod read_batch;
mod read_run;
mod ready_entries;
mod ready_guard;
mod ready_queue;
mod schedule;
mod settle;
mod trim_idle;
mod woken_runs;

pub use memory_budget::{InvalidMemoryBudget, MemoryBudget};
pub use persister::Persister;
