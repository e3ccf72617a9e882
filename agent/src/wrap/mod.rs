//! `runcast wrap`: runs any command and publishes what it prints, without getting in its way.
//!
//! Starting:
//! - `run`: the whole course, from joining the run to the exit code;
//! - `which_run`: the run of the options, the environment, or an outer `runcast wrap`;
//! - `open_publisher`: joins or creates the run, or spools for one;
//! - `description`: what may be shown of the command, without secrets;
//! - `command_env`: which variables the command gets;
//! - `startup`: what `runcast` was started with, which the command gets too;
//! - `child`, `ending`: starts the command, and interprets how it ended; ends `runcast` likewise;
//! - `pid_variables`: corrects variables that are for one process;
//! - `own_streams`: which of its standard streams `runcast` keeps open;
//! - `pty`, `session_leader`, `parent_tty`, `stdin`: the command's terminal, its session, the
//!   terminal of `runcast` itself, and what is typed.
//!
//! While it runs:
//! - `supervisor`: stays with the command until it has ended and its output is read;
//! - `signals`, `control`: forwards signals, and executes control commands;
//! - `process_tree`, `reaper`: reaches the processes that it started, and reaps those that ended;
//! - `left_behind`: passes on what processes print that the command left behind;
//! - `copy_output`, `read_order`, `fd_ready`: reads its streams in the order in which it writes;
//! - `output_stream`: one stream on its way: `passthrough` copies it to the own stream of
//!   `runcast`, `line_splitter` cuts the redacted text into lines;
//! - `chunks`: publishes these lines: `detect` finds what they say beyond their text,
//!   `output_limit` bounds them, `event_sink` handles a full queue, `progress` reports how far the
//!   work has come.
//!
//! Everything that is published is redacted first: the streams in `output_stream`, the rest in
//! `description`. The first event is `status` running, the last one the final `status` with the
//! seal.

mod child;
mod chunks;
mod command_env;
mod control;
mod copy_output;
mod description;
mod detect;
mod ending;
mod event_sink;
mod fd_ready;
mod left_behind;
mod line_splitter;
mod open_publisher;
mod output_limit;
mod output_stream;
mod own_streams;
mod parent_tty;
mod passthrough;
mod pid_variables;
mod process_tree;
mod progress;
mod pty;
mod read_order;
mod reaper;
mod run;
mod session_leader;
mod signals;
mod startup;
mod stdin;
mod supervisor;
mod which_run;

pub use child::CommandExit;
pub use detect::{MarkerSelection, Markers, UnknownMarkers};
pub use ending::end_like;
pub use left_behind::pass_on;
pub use pid_variables::exec_corrected;
pub use run::{WrapOptions, not_started, run, run_alone};
pub use session_leader::lead_session;
pub use startup::Startup;
