//! The command line of `runcast`.
//!
//! - `args`: the commands and their arguments, and their conversion to options;
//! - `help`: what `--help` prints after the arguments.

mod args;
mod help;

pub use args::{
    Cli, Command, DeleteArgs, ExecArgs, RedactArgs, ResendArgs, SessionArgs, TailArgs, WrapArgs,
};
