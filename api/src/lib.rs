//! Stores and shows runs: what stands behind the program `runcastd`.
//!
//! The data's way: [`persist`] takes it from Redis into Postgres ([`store`]), [`fanout`] from both to viewers, over
//! [`http`], as events, each in its [`envelope`], or as [`text`]; old runs go to the [`archive`], and [`history`] reads
//! what is stored wherever it lies. [`access`] says who may do what, some by [`run_labels`]; [`tasks`] is what has to
//! be done now and then, [`metrics`] and [`health`] tell how it goes, [`app`] puts the services together, [`dev`]
//! brings a Redis and a Postgres of its own.

pub mod access;
pub mod app;
pub mod archive;
pub mod check;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod dev;
pub mod envelope;
pub mod export;
pub mod fanout;
pub mod health;
pub mod history;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod persist;
mod prompt;
pub mod run_labels;
pub mod store;
pub mod tasks;
pub mod text;
pub mod token;
pub mod user;
pub mod webhook;
