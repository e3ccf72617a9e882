//! The OpenAPI document: what the API accepts and answers, generated from the handlers.
//!
//! [`complete`] adds what the handlers need not repeat, [`handler`] serves the document.

pub mod complete;
pub mod handler;
