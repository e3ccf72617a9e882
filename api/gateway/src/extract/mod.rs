//! What handlers read from requests: extractors, and helpers for what several routes read alike.
//!
//! - [`caller`]: the principal. [`credential`]: what a request presents to be authenticated.
//! - [`json`]: bodies. [`query`]: parameters. [`path`]: ids. [`page`]: pages of lists.
//! - [`labels`]: labels of runs. [`reason`]: why something is asked for.
//! - [`sse`]: cursors, and the head of an event stream.
//! - [`accept`]: which format of an answer the client wants. [`etag`]: tags of answers.

pub(crate) mod accept;
pub mod caller;
pub mod credential;
pub(crate) mod etag;
pub mod json;
pub(crate) mod labels;
pub(crate) mod page;
pub(crate) mod path;
pub mod query;
pub(crate) mod reason;
pub(crate) mod sse;
