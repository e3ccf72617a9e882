//! The program `runcast-export`: writes runs and their events as Parquet files, for DuckDB and the
//! like. Runcast itself never reads them back.
//!
//! The way of the data: [`args`] says what to export; [`manifest`] keeps that in the folder;
//! [`export`] walks over the hours, reads each from one snapshot of Postgres, turns records into
//! the cells of [`columns`], and writes them to a [`parquet_file`]; [`progress`] reports.
//!
//! Errors are `anyhow` errors in words for a person; after one, the same command continues the
//! export.

mod args;
mod columns;
mod export;
mod manifest;
mod parquet_file;
mod progress;

pub use args::{ExportArgs, HELP};
pub use export::export;
