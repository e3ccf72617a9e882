//! The program `runcast`: parses the command line, runs the requested command, and returns its
//! result as an exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use runcast_agent::cli::{Cli, Command};
use runcast_agent::exit_code::EX_USAGE;
use runcast_agent::local_gateway::LocalEnv;
use runcast_agent::removal::{delete, redact};
use runcast_agent::{resend, tail, wrap};
use runcast_common::config::ProcessEnv;
use runcast_common::telemetry::Audience;
use runcast_common::{connect, telemetry};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    connect::install_tls_provider();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
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
    match &command {
        Command::Session(session) => wrap::lead_session(&session.command)?,
        Command::PassOn => wrap::pass_on()?,
        Command::Exec(exec) => {
            let error = wrap::exec_corrected(&exec.pid, &exec.command);
            return Ok(wrap::end_like(wrap::not_started(&exec.command, &error)));
        }
        _ => {}
    }
    telemetry::start(&ProcessEnv, "warn", Audience::Person)?;
    let env = LocalEnv::new(ProcessEnv);
    match command {
        Command::Wrap(arguments) => {
            let startup = wrap::Startup::record().context("signals cannot be blocked")?;
            let options = arguments.into();
            let runtime = match start_runtime() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let exit = wrap::run_alone(&options, &env, &startup, &error);
                    return Ok(wrap::end_like(exit));
                }
            };
            let exit = runtime.block_on(wrap::run(&options, &env, startup));
            // Do not wait for tasks: a blocked write to a terminal must not keep the process.
            runtime.shutdown_background();
            Ok(wrap::end_like(exit?))
        }
        Command::Tail(arguments) => {
            let runtime = start_runtime()?;
            let result = runtime.block_on(tail::run(&arguments.into(), &env));
            runtime.shutdown_background();
            Ok(tail::exit_code(&result))
        }
        Command::Session(_) | Command::PassOn | Command::Exec(_) => Ok(0),
        Command::Delete(arguments) => {
            Ok(start_runtime()?.block_on(delete::run(arguments.run, &env)))
        }
        Command::Redact(arguments) => Ok(start_runtime()?.block_on(redact::run(&arguments, &env))),
        Command::Resend(arguments) => {
            Ok(start_runtime()?.block_on(resend::run(&arguments.into(), &env)))
        }
    }
}

fn start_runtime() -> anyhow::Result<Runtime> {
    Runtime::new().context("the runtime cannot start its threads")
}

/// Prints help and version to stdout and succeeds; prints any other error to stderr.
fn print_usage(error: &clap::Error) -> ExitCode {
    let is_requested = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    // A closed stream is not an error.
    drop(error.print());
    if is_requested {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EX_USAGE)
    }
}
