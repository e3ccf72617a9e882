//! The program `runcastd`: see [`runcast_api::cli`] for its commands.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use runcast_api::cli::command::{self, Cli};
use runcast_api::settings::unknown::warn_about_unknown;
use runcast_common::config::ProcessEnv;
use runcast_common::telemetry::Audience;
use runcast_common::{connect, telemetry};

fn main() -> ExitCode {
    let cli = Cli::parse();
    connect::install_tls_provider();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is gone too, the exit code says it.
            drop(writeln!(std::io::stderr(), "runcastd: {error:#}"));
            ExitCode::from(command::exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    telemetry::start(&ProcessEnv, "info,sqlx=warn", Audience::Operator)?;
    warn_about_unknown();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(cli.run())
}
