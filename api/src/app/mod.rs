//! Puts the services together, and is the only place that starts long-lived tasks.
//!
//! [`process`] prepares and supervises a process; [`gateway`], [`persister`] and [`worker`] each start one service in it.

mod gateway;
mod persister;
pub mod process;
mod worker;
