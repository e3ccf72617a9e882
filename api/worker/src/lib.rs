//! The worker: scheduled background work. Any number of workers may run.
//!
//! [`worker`] holds what all work uses, [`settings`] what an operator may set. [`supervise`] starts
//! nine loops and restarts them after failures:
//! - [`liveness`], in the one worker that holds the lease, marks silent agents as stale or lost,
//!   and queues the hourly jobs;
//! - [`jobs`] runs the hourly jobs: among them [`retention`] by its [`retention_rules`],
//!   [`orphan_keys`] and the hourly part of [`archive`];
//! - a second queue of [`jobs`] archives single runs ([`archive`]), a third one removes what is
//!   left of deleted runs ([`deletion`]);
//! - `runcast-webhooks` delivers notifications;
//! - [`reconcile`], in one worker as well, finds runs of which Postgres has lost events;
//! - [`run_users`] removes Redis users of agents whose token has ended;
//! - [`metrics`] reports the state of the jobs.
//!
//! Errors: everything fails with [`error::TaskError`]. What was done until then stays done, and
//! every task may be repeated: a loop restarts with a backoff, the queue retries a job.

pub mod age;
mod archive;
mod deletion;
mod error;
mod jobs;
mod liveness;
pub mod metrics;
mod orphan_keys;
mod reconcile;
mod redaction;
mod retention;
pub mod retention_rules;
mod run_users;
pub mod settings;
mod supervise;
mod worker;

pub use worker::Worker;
