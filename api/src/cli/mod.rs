//! The commands of `runcastd`: [`command`] holds the command line, each other file one command.
//!
//! Commands that only read or change the database write their result into a buffer, through
//! [`output::with_store`], so that it reaches stdout in one piece also where they fail half-way.

pub mod check;
pub mod command;
pub mod dead_letter;
mod escape;
pub mod jobs;
mod label;
pub mod migrate;
mod output;
mod prompt;
pub mod recover;
pub mod serve;
pub mod settings;
pub mod token;
pub mod user;
pub mod webhook;
mod worker_help;
