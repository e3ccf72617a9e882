//! Publishing over HTTP: `POST /v1/runs/{run}/events`.
//!
//! [`handler`] reads batches of event lines from the request ([`body`]), waits until the run may
//! receive more bytes ([`throttle`]) and appends them as one [`producer`].

mod body;
pub mod handler;
mod producer;
mod throttle;
