//! Thousands of viewers of server-sent events in one thread: raw sockets that cost little, to
//! measure and check servers.
//!
//! - One thread, epoll through mio, and one buffer of [`READ_BYTES`] that all sockets read into. A
//!   viewer is a socket, the incomplete end of a frame, and the number of the message that must
//!   come next.
//! - Messages carry a [`stamp`](crate::stamp). Each viewer checks that the numbers are contiguous,
//!   also across reconnects. A [`Histogram`] counts the time from when each message was due.
//! - A viewer that reconnects sends the last id that it has received, after the time that `retry:`
//!   asked for.
//!
//! The thread ends with the [`Crowd`], and all sockets with it.

mod event_loop;
mod handle;
mod histogram;
mod response_parser;
mod viewer;

pub use self::handle::{Crowd, CrowdCounts, CrowdPlan, READ_BYTES, RequestBuilder};
pub use self::histogram::Histogram;
