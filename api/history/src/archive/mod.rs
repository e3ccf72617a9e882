//! The archive: sealed runs that are old enough lie as one object each in an object store outside
//! of Postgres.
//!
//! - [`mod@format`]: an object is made of independent zstd frames of NDJSON and an index.
//! - [`mod@object_store`]: objects lie in a folder or in S3. [`upload`]: how they get there.
//! - [`writer`]: writes an object from rows, reads it back, and compares it with them, byte by
//!   byte.
//! - [`reader`]: reads pages from objects, by few ranges and a cache that is bounded in bytes.
//! - [`metrics`]: counts all that.
//!
//! Postgres alone decides which objects exist and which may be deleted (`runcast_store::archives`):
//! a row is there before the first byte is written, and goes after the object is deleted, so a
//! killed worker leaves nothing unnoticed. The worker decides when (`runcast_worker::archive`).
//! Rows go only after the object was read back and compared. The moment at which readers switch
//! over is one transaction, and [`crate::stored`], which joins archive and rows, reads rows by a
//! statement that checks it. Only the time of the append is lost with the rows, which no API
//! returns.
//!
//! A run that continues after it was archived (a later attempt) gets a second object when it is
//! sealed again. The objects of a run follow each other without a hole, and rows follow the last
//! object.

pub mod format;
pub mod metrics;
pub mod object_store;
pub mod reader;
pub mod replace;
pub mod upload;
pub mod writer;
