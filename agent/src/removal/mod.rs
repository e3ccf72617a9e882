//! Takes back what was published.
//!
//! - [`delete`]: deletes a run;
//! - [`redact`]: masks what a run has printed.

pub mod delete;
pub mod redact;
