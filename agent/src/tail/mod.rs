//! `runcast tail`: follows a run in a terminal.
//!
//! - `follow`: connects, reconnects and keeps the cursor;
//! - `long_poll`: the same without a stream, for networks that hold streams back;
//! - `sse`: parses server-sent events;
//! - `print`: prints events as text or JSON lines.

mod follow;
mod long_poll;
mod print;
mod sse;

pub use follow::{TailOptions, exit_code, run};
