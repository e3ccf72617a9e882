//! Reading a run from wherever it lies: Redis, Postgres or the archive.
//!
//! A read walks through these files, in this order:
//!
//! 1. [`reader`]: one read at a cursor. It asks Redis first, then the stored events, and fills a
//!    sink without a hole, or with a [`gap_notice`] where no store has the events.
//! 2. [`stored`]: joins the rows of Postgres with the [`archive`], which holds old runs as objects.
//! 3. [`pages`]: repeats reads until a page of history is full, forward or backward.
//! 4. [`text`]: makes plain text, lines and search results from pages.
//!
//! Beside that: [`filter`] says which events a reader gets, and [`envelope`] adds the fields that
//! the server adds to an event line.
//!
//! Errors: each error type tells which store failed. An outage can be retried; a damaged archive
//! object has to be repaired (`is_outage` tells them apart). An outage of Redis is no error of a
//! read: the answer then comes from Postgres, and its status says so.

pub mod archive;
pub mod envelope;
pub mod filter;
pub mod gap_notice;
pub mod pages;
mod raw_fields;
pub mod reader;
pub mod stored;
pub mod text;

pub use stored::History;
