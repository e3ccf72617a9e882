//! Plain text of a run: `GET /v1/runs/{run}/text`.
//!
//! [`handler`] decides what is sent, `byte_slice` sends it.

mod byte_slice;
pub mod handler;
