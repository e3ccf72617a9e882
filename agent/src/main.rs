//! The program `runcast`: reads the command line, starts what is asked for, and turns its end into
//! an exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use runcast_agent::cli::{Cli, Command};
use runcast_agent::{resend, tail, wrap};
use runcast_common::config::ProcessEnv;
use runcast_common::telemetry::Audience;
use runcast_common::{connect, telemetry};
use tokio::runtime::Runtime;

/// Wrong use, as in `sysexits.h`; clap's own 2 could be the wrapped command's.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    connect::install_tls_provider();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    if let Command::Session(session) = &command {
        wrap::lead(&session.command)?;
    }
    telemetry::start(&ProcessEnv, "warn", Audience::Person)?;
    match command {
        Command::Wrap(arguments) => {
            // Before any thread is started.
            let blocked = wrap::block().context("signals cannot be blocked")?;
            let runtime = Runtime::new().context("no threads")?;
            let code = runtime.block_on(wrap::run(&arguments.into(), &ProcessEnv, &blocked));
            // Nothing is left to be done, and a blocked write to a terminal shall not keep us.
            runtime.shutdown_background();
            Ok(code?)
        }
        Command::Tail(arguments) => {
            let runtime = Runtime::new().context("no threads")?;
            let result = runtime.block_on(tail::run(&arguments.into(), &ProcessEnv));
            runtime.shutdown_background();
            Ok(tail::exit_code(&result))
        }
        Command::Session(_) => Ok(1),
        Command::Resend(arguments) => {
            let runtime = Runtime::new().context("no threads")?;
            Ok(runtime.block_on(resend::run(&arguments.into(), &ProcessEnv)))
        }
    }
}

/// Help and version go to stdout and are a success, anything else is wrong use.
fn explain(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    // That nobody reads it is no reason to fail.
    drop(error.print());
    if asked_for {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(USAGE)
    }
}
