//! The program `runcast-export`: parses its command line, connects to Postgres, and exports.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use runcast_common::config::{PostgresUrl, ProcessEnv, required};
use runcast_common::telemetry::{self, Audience};
use runcast_export::{ExportArgs, HELP, export};
use runcast_store::Store;

/// Write runs and their events as Parquet files, for DuckDB and the like
///
/// Reads the Postgres that `DATABASE_URL` names. Its schema must have the version of this program.
#[derive(Debug, Parser)]
#[command(name = "runcast-export", version, after_help = HELP, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    args: ExportArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    runcast_common::connect::install_tls_provider();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without stderr there is no other way to report it.
            drop(writeln!(std::io::stderr(), "runcast-export: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    telemetry::start(&ProcessEnv, "info,sqlx=warn", Audience::Operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let database: PostgresUrl = required(
            &ProcessEnv,
            "DATABASE_URL",
            "for example postgres://user:password@host/runcast",
        )?;
        let store = Store::new(&database, "runcast-export").context("DATABASE_URL")?;
        let unreachable = || format!("DATABASE_URL: Postgres at {database} cannot be reached");
        store.ping().await.with_context(unreachable)?;
        store.check_schema().await.context("DATABASE_URL")?;
        let summary = export(&cli.args, &store).await?;
        writeln!(std::io::stdout(), "{summary}").context("cannot print the summary")
    })
}
