//! Reading a run from wherever it lies: Redis, Postgres or the archive.
//!
//! - [`reader`]: one read at a cursor, joined over all three without a seam. [`pages`]: pages of history, both ways.
//! - [`stored`]: what Postgres and the archive hold. [`archive`]: old runs as objects.
//! - [`filter`]: which events a reader wants. [`gap_notice`]: how a hole is reported. [`envelope`]: the fields that the
//!   server adds to an event.
//! - [`text`]: plain text, lines and search.

pub mod archive;
pub mod envelope;
pub mod filter;
pub mod gap_notice;
pub mod pages;
pub mod reader;
pub mod stored;
pub mod text;

pub use stored::History;
