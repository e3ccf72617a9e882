//! Puts the services together, and is the only place of the program that starts long-lived tasks.
//!
//! [`process`] prepares and supervises a process; [`gateway`], [`persister`] and [`worker`] each
//! start one service in it; [`signals`] cancels the token that stops all of them.

mod gateway;
mod persister;
pub mod process;
pub mod signals;
mod worker;
