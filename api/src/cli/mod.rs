//! The commands of `runcastd`.

pub mod command;
pub mod dead_letter;
pub mod jobs;
mod prompt;
pub mod token;
pub mod user;
pub mod webhook;
