//! What the program `runcast-export` does: writes runs and their events as Parquet files.

mod export;
mod table;

pub use export::{Export, HELP};
