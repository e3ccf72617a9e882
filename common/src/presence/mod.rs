//! Which agents are alive, and what changed about runs.
//!
//! - [`heartbeat`]: what an agent reports every few seconds, and how to read it.
//! - [`liveness`]: how the worker finds agents that fell silent or came back.
//! - [`run_update`]: changes of a run that are not events of it, published to viewers.

pub mod heartbeat;
pub mod liveness;
pub mod run_update;
