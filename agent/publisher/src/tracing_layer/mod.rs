//! Publishes what a program traces with `tracing` as structured `log` events.
//!
//! - `layer`: [`RuncastLayer`], a layer for `tracing_subscriber`;
//! - `fields`: reads the fields of an event or a span, bounded and redacted;
//! - `payload`: the published payload, and how a payload that is too large is shortened.

mod fields;
mod layer;
mod payload;

pub use layer::{OWN_TARGETS, RuncastLayer};
