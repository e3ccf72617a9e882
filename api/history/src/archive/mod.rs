//! The archive: sealed runs that are old enough lie as one object each in a [`place`] outside of Postgres.
//!
//! - [`object`] is what such an object is made of: independent zstd frames of NDJSON and an index.
//! - [`place`] is where objects lie: a folder, or S3; [`upload`] is how they get there.
//! - [`mod@write`] makes one out of rows, reads it back and compares it with them, byte by byte.
//! - [`read`] gives pages of it, from few ranges and a cache that is bounded in bytes.
//! - [`meter`] counts all that.
//!
//! What exists and what may go is decided in Postgres alone ([`runcast_store::archives`]); when, by the worker
//! ([`runcast_worker::archive`]). Readers go through [`crate::stored`], which joins archive and rows.
//!
//! A run that goes on after it was archived (a later attempt) gets a second object when it is sealed again:
//! objects of a run follow each other without a seam, and rows follow the last one.

pub mod format;
pub mod metrics;
pub mod object_store;
pub mod reader;
pub mod upload;
pub mod writer;
