//! `runcastd migrate`: brings the database to the version of this program. Nothing else changes a
//! schema.

use anyhow::Context as _;
use runcast_common::config::Env;
use runcast_store::Store;

use super::output::print_line;
use crate::settings;

/// Migrates, and makes the partitions of the next days.
pub async fn run(env: &impl Env) -> anyhow::Result<()> {
    let database = settings::database(env)?;
    let store = Store::new(&database, "runcastd migrate").context("DATABASE_URL")?;
    let unreachable = || format!("DATABASE_URL: Postgres at {database} cannot be reached");
    store.ping().await.with_context(unreachable)?;
    store.migrate().await.context("DATABASE_URL")?;
    let made = store.make_partitions().await?;
    print_line(&format!(
        "the database is up to date; {made} partitions created"
    ))
}
