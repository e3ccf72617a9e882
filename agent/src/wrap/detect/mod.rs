//! Detects structure in the command's output: JSON log lines, groups, levels, and how far the work
//! has come.
//!
//! - `detector`: reads the chunks of a stream, and uses everything below;
//! - `json`: lines that are one JSON object with a level and a message;
//! - `markers`: which markers are detected;
//! - `gitlab`, `github`, `buildkite`: groups and levels in the syntax of these CI systems;
//! - `progress`: percentages;
//! - `title`: the readable part of a marker line.

mod buildkite;
mod detector;
mod github;
mod gitlab;
mod json;
mod markers;
mod progress;
#[cfg(test)]
mod tests;
mod title;

pub(crate) use detector::Detector;
pub use markers::{MarkerSelection, Markers, UnknownMarkers};
pub(crate) use progress::ProgressMark;
