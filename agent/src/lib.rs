//! The producer's end of Runcast: publishes what a run prints, so that it is seen within
//! milliseconds and stored for good.
//!
//! The way of an event:
//!
//! - [`publisher`]: the calls of an agent, the crate's public face;
//! - `payload`, `queue`, `batch`: the line is written into a bounded queue, which cuts batches;
//! - `backlog`, `spool`, `ledger`: what may have to be sent again, and how the answers of Redis are read;
//! - `sender`, `pace`, `link`: the one task and the one connection that append;
//! - `progress`, `outcome`: what the task tells those who publish; `pulse`: that all this lives;
//! - [`api`]: how an agent learns where its run is published, over HTTP;
//! - [`redact`]: takes the values of secrets out of what is published.
//!
//! For programs that publish by themselves, beside the calls of the publisher:
//!
//! - [`layer`]: what is traced with `tracing`, as structured `log` events;
//! - [`model_text`]: a model's answer, while it is being written;
//! - [`tokens`]: what it cost.
//!
//! On top of it stands the program `runcast`: [`cli`] reads what is asked for, [`wrap`] runs any
//! command and publishes it, [`tail`] follows a run in a terminal,
//! [`resend`] sends what is left in a spool.

pub mod api;
mod backlog;
mod batch;
pub mod cli;
mod launch;
pub mod layer;
mod ledger;
mod link;
pub mod model_text;
mod outcome;
mod pace;
mod payload;
mod progress;
pub mod publisher;
mod pulse;
mod queue;
pub mod redact;
pub mod resend;
mod sender;
mod spool;
pub mod tail;
mod target;
pub mod tokens;
mod workflow_command;
pub mod wrap;

pub use publisher::Publisher;

/// Exit code where the gateway or Redis cannot be reached: `EX_UNAVAILABLE` of `sysexits.h`.
const UNAVAILABLE: u8 = 69;

/// Tells the person at the terminal something, on a line of its own. That nobody reads it is no
/// reason to fail.
fn say(what: std::fmt::Arguments<'_>) {
    use std::io::Write as _;

    use rustix::termios::{OutputModes, tcgetattr};
    let mut stderr = std::io::stderr();
    // While a command has our terminal for itself, that does not begin lines at their beginning.
    let raw =
        tcgetattr(&stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    let end = if raw { "\r\n" } else { "\n" };
    drop(write!(stderr, "runcast: {what}{end}"));
}
