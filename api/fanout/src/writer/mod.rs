//! Threads that write to the sockets of viewers.
//!
//! [`pool`]: the threads and their mailboxes. [`thread`]: the loop of one. [`connection`]: one viewer's socket.

mod connection;
pub mod pool;
pub mod thread;

pub use pool::{Metrics, WriterPool};
