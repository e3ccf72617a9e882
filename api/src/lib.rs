//! The program `runcastd`: reads its settings, puts the services together, and has commands for operators.

pub mod app;
pub mod cli;
pub mod config;
pub mod dev;
pub mod metrics;
pub mod preflight;
