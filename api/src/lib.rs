//! Stores and shows runs: what stands behind the program `runcastd`.
//!
//! The data's way: [`persist`] takes it from Redis into Postgres ([`store`]), [`fanout`] from both to
//! viewers, over [`http`], as events or as [`text`]. [`access`] says who may do what, [`tasks`] is what has to be done now and
//! then, [`metrics`] and [`health`] tell how it goes, [`app`] puts the services together, [`dev`] brings a Redis and a Postgres of its own.

pub mod access;
pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod dev;
pub mod export;
pub mod fanout;
pub mod health;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod persist;
pub mod store;
pub mod tasks;
pub mod text;
pub mod webhook;
