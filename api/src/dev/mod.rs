//! `runcastd dev`.

mod child;
mod postgres;
mod redis;
pub mod start;
