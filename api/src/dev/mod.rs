//! `runcastd dev`: everything in one process, on one machine.
//!
//! [`start`] runs it: the [`data_dir`], then a private [`redis`] and [`postgres`] where no address
//! is given, each a [`child`] process, then the three services.

mod child;
mod data_dir;
mod postgres;
mod redis;
pub mod start;
