//! Connections: the gateway's own server of HTTP/1.1 and HTTP/2, in the clear or with TLS.
//!
//! ```text
//! listener -> accept -> serve (hyper) -> router
//!                         |
//!                         +-- answer is a stream, plain HTTP/1.1: handover
//!                         |     socket, head, viewer -> writer threads of runcast-fanout
//!                         +-- answer is a stream, TLS or HTTP/2: hyper sends it as a body
//! ```
//!
//! # Why an own server
//!
//! `axum::serve` keeps a task, the HTTP state and its buffers for every connection as long as it is
//! open. A gateway with ten thousand viewers would hold ten thousand of them, each of which encodes
//! the same chunks. This server buys that **a viewer is a cursor and a socket**:
//!
//! - Until a request is answered, hyper serves its connection like any other.
//! - If the answer is the stream of one run and the connection is plain HTTP/1.1, the connection is
//!   taken apart and its socket goes to a writer thread
//!   ([`WriterPool`](runcast_fanout::writer::WriterPool)), with the head of the answer still to be
//!   sent. The task and its buffers end. What stays of the viewer is a cursor, a socket and the
//!   rest of a frame.
//! - One thread for every two processors writes the same bytes to all viewers of a run, at most
//!   every 4 ms. For that the body has no chunks: it ends with the connection, as HTTP/1.1 allows
//!   (`Connection: close`). Its last frame, `end` or `closing`, says which end it is.
//! - A connection with TLS or HTTP/2 is more than a socket, so hyper sends its streams
//!   ([`body_stream`](runcast_fanout::body_stream)). Streams of several runs are sent this way,
//!   too.
//!
//! # Files
//!
//! - [`accept`]: accepts connections until the gateway stops, then drains them.
//! - [`serve`]: serves one connection by its protocol, and passes its requests to the router.
//! - [`handover`]: how the answer of a handler becomes a socket of a writer thread.
//! - [`connections`]: how many connections there may be, and the address of a client.
//! - `stall_timeout`: a client that stops reading. `idle_timeout`: an HTTP/2 connection without
//!   requests. `guarded_body`: what an answer holds until it is sent. [`tls`]: the certificate.
//!
//! # Time and bounds
//!
//! - [`HEAD_DEADLINE`](serve::HEAD_DEADLINE) for the TLS handshake, for the head of a request, and
//!   between two requests. A client that stops reading is cut off after the same timeout as
//!   viewers.
//! - After `stop` no connection is accepted. Requests in progress are answered, and what is still
//!   open after [`DRAIN_DEADLINE`](accept::DRAIN_DEADLINE) is cut.
//! - The number of connections is limited by [`ConnectionLimiter`](connections::ConnectionLimiter),
//!   the size of a request by [`request_limits`](crate::middleware::request_limits).

pub mod accept;
pub mod connections;
pub(crate) mod guarded_body;
pub mod handover;
mod idle_timeout;
pub mod serve;
mod stall_timeout;
pub mod tls;
