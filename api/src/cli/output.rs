//! What commands print, and the one way in which they open the database.

use std::io::Write;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use runcast_common::config::{Env, PostgresUrl};
use runcast_common::protocol::event::line_separators;
use runcast_store::Store;
use serde::Serialize;

use crate::preflight;
use crate::settings;

/// Opens the database, runs a command on it, and prints what the command wrote, also where it
/// fails.
pub(super) async fn with_store(
    env: &impl Env,
    command: impl AsyncFnOnce(&Store, &mut Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let store = open(&settings::database(env)?).await?;
    let mut out = Vec::new();
    let outcome = command(&store, &mut out).await;
    print(&out)?;
    outcome
}

/// Opens the database and checks its schema.
pub(super) async fn open(database: &PostgresUrl) -> anyhow::Result<Store> {
    let store = Store::new(database, "runcastd").context("DATABASE_URL")?;
    preflight::postgres(&store, database).await?;
    Ok(store)
}

/// Prints one line for people and scripts.
pub(super) fn print_line(line: &str) -> anyhow::Result<()> {
    print(format!("{line}\n").as_bytes())
}

/// Prints bytes as they are.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// A moment in a table.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// One JSON object and the end of its line, which no text in it looks like.
pub(super) fn json_line(value: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    out.write_all(&line_separators::escaped(&serde_json::to_vec(value)?))?;
    Ok(writeln!(out)?)
}
