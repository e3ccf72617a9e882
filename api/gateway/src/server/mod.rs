//! Connections: accepting, TLS, timeouts, and handing a stream's socket over to the writer threads.

pub mod accept;
pub mod connections;
pub(crate) mod guarded_body;
mod idle_timeout;
mod stall_timeout;
pub mod tls;
