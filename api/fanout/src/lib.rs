//! Fan-out: from one run stream to any number of viewers.
//!
//! ```text
//! Redis stream --\                     /--> viewer: a cursor and a socket
//!                 reader -> tail -> ring ---> viewer
//! Postgres ------/          (one per run) \--> viewer
//! ```
//!
//! An event reaches a viewer through these files, in this order:
//!
//! 1. [`wakeups`] receives the wake-up that the append script publishes, and passes it to the tail
//!    of the run.
//! 2. [`tail`] reads what the wake-up announces as [`frame`]s ([`read_frames`]), and appends them
//!    to the [`ring`] in its `tail_state`. Then it notifies its listeners.
//! 3. `writer::mailbox` marks the run as changed and wakes its `writer::thread`, which serves each
//!    `writer::connection` of that run.
//! 4. [`viewer`] looks up what follows its cursor and selects the frames that its filter accepts.
//!    The connection writes them to the socket.
//!
//! Beside that way:
//!
//! - [`Hub`] holds the tails of all watched runs and starts reads for them. `backfill` holds pages
//!   from before the ring. [`memory`] bounds rings and pages over all runs.
//! - [`body_stream`] serves a viewer whose connection belongs to the HTTP library. [`multi_viewer`]
//!   serves several runs on one connection, with a [`multi_cursor`]. [`sse`] holds what all streams
//!   share.
//! - [`feed`] streams changes of all runs. `heartbeats` and `run_updates` hold what the channels of
//!   one run carry beside events. [`long_poll`] waits for news of one run.
//!
//! There is no queue per viewer: a slow viewer is only a cursor that moves slowly, and what it has
//! not read yet stays in Redis or Postgres. There is one ring per run, not one per filter, so
//! memory does not grow with what viewers ask for.
//!
//! Errors: a failed read never ends a stream. The tail retries it with backoff, and viewers get a
//! `degraded` notice meanwhile. Only [`long_poll`] returns the error of its read to the caller.

mod backfill;
pub mod body_stream;
mod degraded;
pub mod feed;
pub mod frame;
mod heartbeats;
mod hub;
pub mod long_poll;
pub mod memory;
pub mod multi_cursor;
pub mod multi_viewer;
pub mod read_frames;
pub mod ring;
mod run_updates;
pub mod sse;
pub mod tail;
mod tail_state;
mod trim_heap;
pub mod viewer;
pub mod wakeups;
pub mod writer;

pub use hub::{Hub, TailHandle};
