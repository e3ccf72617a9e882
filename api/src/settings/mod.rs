//! Settings: all of them are environment variables, and all of them stand in one table.
//!
//! A setting is declared once, in [`table`]: its name, default, help text, the programs that read
//! it and the parser of its value. Everything else is made from that table: [`service_settings`]
//! reads the values, [`help`] prints `runcastd --help`, [`markdown`] writes the table in
//! `deploy/README.md`, [`effective`] shows what applies to this process, and [`unknown`] warns
//! about `RUNCAST_*` variables that no program reads. [`plaintext`] refuses, in production, what
//! would travel in clear text.

pub mod effective;
pub mod help;
pub mod markdown;
pub mod plaintext;
pub mod service_settings;
pub mod setting;
pub mod table;
pub mod unknown;

pub use self::service_settings::{Settings, data_dir, database, key_prefix, webhook_settings};
