//! The library of the program `runcast`.
//!
//! - [`cli`]: the command line and its help;
//! - [`wrap`]: runs a command and publishes what it prints;
//! - [`tail`]: follows a run in a terminal;
//! - [`removal`]: deletes a run, or masks what it has printed;
//! - [`resend`]: sends what is left in a spool folder;
//! - [`deferred_run`]: a run that could not be created when it started;
//! - [`local_gateway`]: finds the gateway of `runcastd dev` where none is set;
//! - [`console`], [`exit_code`]: messages to the user, and how the program ends.
//!
//! The publisher itself is the crate `runcast-publisher`, redaction before publishing the crate
//! `runcast-redact`.

pub mod cli;
pub mod console;
pub mod deferred_run;
pub mod exit_code;
pub mod local_gateway;
pub mod removal;
pub mod resend;
pub mod tail;
pub mod wrap;
