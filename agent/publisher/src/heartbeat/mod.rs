//! Heartbeats: how the worker and viewers know that a publishing process lives.
//!
//! - `task`: sends them;
//! - `usage`: the memory and processor time that they report.

pub(crate) mod task;
mod usage;
