//! [`Publisher`], the public face of the crate.
//!
//! - `handle`: the type and its publishing calls;
//! - `backpressure`: calls for code that must not wait;
//! - `commands`: control commands to the run;
//! - `open`: what a publisher starts with;
//! - `start`: how its task starts and ends;
//! - `close`: how it closes.

mod backpressure;
mod close;
mod commands;
mod handle;
mod open;
mod start;

pub use commands::{Command, Commands};
pub use handle::Publisher;
