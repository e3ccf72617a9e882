//! The sender: one task per publisher that moves events from the queue into the retransmit buffer
//! and appends them to the run stream in Redis.
//!
//! - `task`: the task and its loop, which owns everything below;
//! - `intake`: takes batches out of the queue and puts them into the buffer;
//! - `connection`: one Redis connection with several append calls in flight;
//! - `replies`: what a reply asks the task to do;
//! - `schedule`: when to send, to query and to retry;
//! - `progress`: how far the task has come, published to the other parts of the publisher.

mod connection;
mod intake;
pub(crate) mod progress;
mod replies;
mod schedule;
pub(crate) mod task;
