//! Publishing over HTTP.

mod body;
pub mod handler;
mod producer;
mod throttle;
