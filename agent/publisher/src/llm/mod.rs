//! Helpers for programs that call language models (feature `llm`).
//!
//! - [`ModelText`]: publishes a model's answer while it is written;
//! - [`TokenUse`]: publishes how many tokens a call used, and what it cost.

mod answer;
#[cfg(test)]
mod answer_tests;
mod usage;

pub use answer::{
    FLUSH_BYTES, ForwardError, InvalidTextName, LINGER, MAX_BUFFERED_BYTES, ModelText,
};
pub use usage::TokenUse;
