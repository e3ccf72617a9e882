//! Publishing over HTTP: `POST /v1/runs/{run}/events`.
//!
//! [`handler`] reads batches of event lines from the request ([`body`]), which may be compressed
//! ([`decoder`]) and is one of a bounded number ([`open_bodies`]). It waits until the run may
//! receive more bytes ([`throttle`]) and appends them as one [`producer`].

mod body;
mod decoder;
pub mod handler;
mod open_bodies;
mod producer;
mod throttle;
