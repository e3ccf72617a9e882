//! Retransmission: the publisher stores events until Postgres holds them, and sends them again
//! where Redis lost them.
//!
//! - `buffer`: the events themselves, in memory and in the spool;
//! - `bodies`: batches in memory, with their cost;
//! - `send_window`: which seqs are sent, acknowledged and durable, and what a reply means for them.

mod bodies;
pub(crate) mod buffer;
#[cfg(test)]
mod buffer_tests;
pub(crate) mod send_window;
#[cfg(test)]
mod send_window_tests;
