//! The bounded queue between callers that publish and the one task that sends.
//!
//! - `event_queue`: the queue and its notifications;
//! - `state`: what its lock guards: how batches are cut, counted and dropped;
//! - `pending`: a batch that waits, without seqs;
//! - `batch`: a batch with seqs, ready to send;
//! - `payload`: payloads that only the publisher writes, and the cutting of text into chunks.

pub(crate) mod batch;
pub(crate) mod event_queue;
pub(crate) mod payload;
pub(crate) mod pending;
mod state;
#[cfg(test)]
mod tests;

pub use payload::{chunk_length, incomplete_tail};
