//! Redacts stored events on request.
//!
//! ```text
//! request (gateway) -> redactions (Postgres) -> job: find -> mask -> rows, objects, copies
//!                                                    -> trim Redis -> tell viewers
//! ```
//!
//! [`job`] carries it out, [`find`] says which parts of which events are masked, [`mask`] masks
//! them, by the [`json_tokens`] of a line.

mod find;
pub(crate) mod job;
mod json_tokens;
mod mask;
