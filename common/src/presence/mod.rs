//! Which agents live, and what changed about runs.
//!
//! - [`heartbeat`]: what an agent sends every few seconds, and how it is read.
//! - [`liveness`]: which agents fell silent or came back, as the worker learns it.
//! - [`run_update`]: changes of a run that are not events of it, published to viewers.

pub mod heartbeat;
pub mod liveness;
pub mod run_update;
