//! Threads that write to the sockets of viewers: a few threads for all viewers, none of their own.
//!
//! ```text
//! HTTP: response head + socket --> mailbox of a thread --> thread: epoll over its connections
//! tail: "the run has changed" ---> mailbox                          \--> cursor and socket
//! ```
//!
//! A plain HTTP/1.1 connection that is to carry a stream leaves the HTTP library as soon as its
//! request is answered. So all that stays of a viewer is its `connection`: the socket, the cursor,
//! and the rest of a frame that the socket has not taken. When a run grows, its `thread` gives each
//! connection the same bytes, in one write. The body has no chunks, so that the bytes are the same
//! for all viewers, and ends with the connection; an `end` or `closing` frame before the end tells
//! it from a broken connection.
//!
//! Data: no queues except the new connections in a `mailbox` (bounded by the connections of the
//! process) and the runs that have changed, each once. Time: a run is served at most every
//! `thread::FLUSH_INTERVAL`, so what comes in between is one write; the first event after a pause
//! leaves at once.
//!
//! - `pool`: the threads, and the way in. `mailbox`: what other threads tell a writer thread.
//! - `thread`: the loop of one writer thread. `connection`: one viewer's socket.
//! - `metrics`: what is counted.

mod connection;
mod mailbox;
mod metrics;
mod pool;
mod thread;

pub use metrics::Metrics;
pub use pool::WriterPool;
