//! The program `runcastd`: commands for operators, and the services in one process or several.
//!
//! The way of a start: [`cli`] reads the command line, [`settings`] the environment, [`preflight`]
//! checks Redis and Postgres, [`publish_user`] what agents get of Redis, [`app`] puts the services
//! together and runs them until a signal, and [`metrics`] shows what they count. [`dev`] starts a
//! private Redis and Postgres first.
//!
//! Errors are `anyhow` errors in one line for a person: the setting or server that is to blame,
//! what is wrong, and what to do. A [`runcast_common::config::ConfigError`] or a schema that does
//! not fit ends the program with exit code 78, all else with 1.

pub mod app;
pub mod cli;
pub mod dev;
pub mod metrics;
pub mod preflight;
pub mod publish_user;
pub mod settings;
