//! A property test of the whole pipeline: random orders of publishing, crashes and outages.

mod plan;
mod producer;
mod property;
