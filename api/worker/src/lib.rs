//! The worker: scheduled background work. Any number of workers may run.
//!
//! [`supervise`] runs and restarts its loops: [`liveness`] notices lost agents, [`jobs`] runs [`archive`], [`retention`] and
//! [`orphan_keys`], and webhooks are delivered. [`settings`]: what an operator may set.

pub mod age;
pub mod archive;
mod context;
pub mod error;
pub mod jobs;
pub mod liveness;
pub mod metrics;
pub mod orphan_keys;
pub mod retention;
pub mod settings;
mod supervise;

pub use context::Worker;
pub use error::TaskError;
