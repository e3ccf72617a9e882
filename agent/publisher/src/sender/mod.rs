//! The sender: one task per publisher that moves events from the queue into the retransmit buffer
//! and sends them to the run stream.
//!
//! - `task`: the task and its loop, which owns everything below;
//! - `intake`: takes batches out of the queue and puts them into the buffer;
//! - `replies`: what a reply asks the task to do;
//! - `schedule`: when to send, to query and to retry;
//! - `progress`: how far the task has come, published to the other parts of the publisher.
//!
//! The connection is one of [`transport`](crate::transport).

mod intake;
pub(crate) mod progress;
mod replies;
mod schedule;
pub(crate) mod task;
