//! Fan-out: from one run stream to any number of viewers.
//!
//! ```text
//! Redis stream --\                     /--> viewer: a cursor and a socket
//!                 reader -> tail -> ring ---> viewer
//! Postgres ------/          (one per run) \--> viewer
//! ```
//!
//! - [`hub`]: the watched runs. [`tail`] reads on for one and fills its [`ring`] with [`frame`]s, encoded once;
//!   [`backfill`] holds pages from before the ring; [`memory`] bounds both over all runs.
//! - [`viewer`]: a cursor, and what comes next for it. [`writer`]: threads that write to the sockets of viewers;
//!   [`body_stream`] serves connections that are more than a socket.
//! - [`multi_viewer`]: several runs on one connection, with a [`multi_cursor`]. [`feed`]: changes of all runs.
//! - [`wakeups`] wakes tails and receives [`heartbeats`] of agents and [`run_updates`]. [`long_poll`] waits for news.
//!
//! There is no queue per viewer: a slow one only keeps a cursor, and what it has not read yet waits in Redis or Postgres.

mod backfill;
pub mod body_stream;
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
mod trim_heap;
pub mod viewer;
pub mod wakeups;
pub mod writer;

pub use hub::{Hub, TailHandle};
