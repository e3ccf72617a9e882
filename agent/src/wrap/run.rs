//! The course of `runcast wrap`: starts publishing, starts the command, stays with it, and
//! finishes.
//!
//! Time: [`CONNECT_TIMEOUT`] for the start; [`PIPE_GRACE`](super::supervisor::PIPE_GRACE) for
//! streams that descendants hold open after the command's end; and the drain timeout for storing
//! what is left. A signal ends the last two.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::config::Env;
use runcast_common::protocol::event::StatusChange;
use runcast_publisher::{Closed, Publisher};
use runcast_redact::{EnvRedaction, NamePattern};
use uuid::Uuid;

use super::child::{self, CommandExit};
use super::chunks::ChunkSinks;
use super::command_env::CommandEnv;
use super::control::ControlCommands;
use super::description::CommandDescription;
use super::detect::MarkerSelection;
use super::open_publisher::open_publisher;
use super::own_streams::{OwnStreams, close_stdin_and_stdout};
use super::pid_variables::corrected;
use super::signals::{ReceivedSignal, Signals};
use super::startup::Startup;
use super::supervisor::Supervisor;
use super::which_run::which_run;
use crate::console::print_message;
use crate::exit_code::EX_UNAVAILABLE;

/// Longest wait for the gateway and Redis together before the command runs unpublished: an
/// acceptable delay for a job that is only being watched.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run, and how to publish it.
#[derive(Debug, Clone)]
pub struct WrapOptions {
    /// The run to join; that of the environment or a new one if absent.
    pub run: Option<Uuid>,
    /// Whether other options are for a new run.
    pub describes_new_run: bool,
    /// Name of a new run; derived from the command if absent.
    pub name: Option<String>,
    /// Labels of a new run.
    pub labels: BTreeMap<String, String>,
    /// The variation that this process publishes.
    pub variation: u16,
    /// Whether an option names the variation.
    pub names_variation: bool,
    /// Number of variations of a new run.
    pub variations: u16,
    /// Do not run the command if it cannot be published.
    pub require: bool,
    /// Folder of the spool; events stay in memory if absent.
    pub spool: Option<PathBuf>,
    /// Longest wait for all events to be stored after the command has ended.
    pub drain_timeout: Duration,
    /// Time that a cancelled command has to end before it is killed.
    pub cancel_grace: Duration,
    /// Run the command in a pseudo-terminal.
    pub tty: bool,
    /// Give the command a token of the run.
    pub hands_on_token: bool,
    /// Variables that the command gets although it is otherwise not given them.
    pub keep_env: Vec<NamePattern>,
    /// Which secrets are redacted.
    pub redact: EnvRedaction,
    /// Which markers are detected in the output.
    pub markers: MarkerSelection,
    /// Limit for the published output; 0 for none.
    pub max_output_bytes: u64,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Runs the command and returns how it ended. Fails only if signals or the end of the command
/// cannot be observed.
pub async fn run(
    options: &WrapOptions,
    env: &impl Env,
    mut startup: Startup,
) -> io::Result<CommandExit> {
    // 1. What is needed to stay with the command: without it, it runs alone.
    let prepared = Supervisor::new().and_then(|supervisor| {
        let own = if options.tty {
            OwnStreams::of_terminal()?
        } else {
            OwnStreams::of_pipes()?
        };
        Ok((supervisor, own, Signals::listen()?))
    });
    let (supervisor, own, mut signals) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Ok(run_alone(options, env, &startup, &error)),
    };
    // 2. Publishing, as far as possible.
    // A token that comes from a file is not among the variables, and is redacted like one that is.
    let token = env.get("RUNCAST_TOKEN");
    let token = token.map(|token| ("RUNCAST_TOKEN".into(), token.into()));
    let variables = std::env::vars_os().chain(token);
    let description = CommandDescription::new(options, variables, env);
    let Some((publisher, command_env)) = start_publishing(options, &description, env).await else {
        return Ok(CommandExit::Code(EX_UNAVAILABLE));
    };
    // 3. The command.
    let command = corrected(&options.command);
    let started = if options.tty {
        child::spawn_in_terminal(&command, own, env, &command_env, &startup)
    } else {
        child::spawn(&command, own, &command_env, &startup)
    };
    let (change, exit) = match started {
        Ok(started) => {
            startup.close_descriptors();
            if !options.tty {
                close_stdin_and_stdout();
            }
            let control = ControlCommands::new(publisher.as_ref(), options.cancel_grace);
            let sinks = ChunkSinks::new(
                publisher.clone(),
                options.markers.resolve(env),
                options.max_output_bytes,
                &child::program(&description.command),
            );
            let publisher = publisher.clone();
            supervisor
                .supervise(
                    started,
                    &description,
                    publisher,
                    sinks,
                    &mut signals,
                    control,
                )
                .await?
        }
        Err(error) => {
            let (change, code) = child::not_started(&description.command, &error);
            print_message(format_args!(
                "{}",
                change.message.as_deref().unwrap_or_default()
            ));
            (change, CommandExit::Code(code))
        }
    };
    if let Some(publisher) = publisher {
        finish(&publisher, change, options.drain_timeout, &mut signals).await?;
    }
    Ok(exit)
}

/// Runs the command in place of this process, which cannot stay with it for this reason. Returns
/// only if that is not possible or not wanted.
pub fn run_alone(
    options: &WrapOptions,
    env: &impl Env,
    startup: &Startup,
    reason: &dyn std::fmt::Display,
) -> CommandExit {
    if options.require {
        print_message(format_args!(
            "{reason}; the command was not run (--require)"
        ));
        return CommandExit::Code(EX_UNAVAILABLE);
    }
    print_message(format_args!(
        "nothing is published, the command runs anyway: {reason}"
    ));
    let command_env = CommandEnv::new(options, None, env);
    let error = child::replace_by(&options.command, &command_env, startup);
    not_started(&options.command, &error)
}

/// Says why a command could not be started.
pub fn not_started(command: &[OsString], error: &io::Error) -> CommandExit {
    let (change, code) = child::not_started(command, error);
    let message = change.message.unwrap_or_default();
    print_message(format_args!("{message}"));
    CommandExit::Code(code)
}

/// Starts publishing, unless an outer `runcast wrap` publishes the command. Returns none if the
/// command must not run because it is not published.
async fn start_publishing(
    options: &WrapOptions,
    description: &CommandDescription,
    env: &impl Env,
) -> Option<(Option<Publisher>, CommandEnv)> {
    let opened = match which_run(options, env) {
        Ok(Some(options)) => open_publisher(&options, description, env).await,
        Ok(None) => {
            print_message(format_args!(
                "nothing is published twice: a runcast wrap around this one publishes the command; \
                 --run or --variation names another run or variation"
            ));
            return Some((None, CommandEnv::default()));
        }
        Err(error) => Err(error.into()),
    };
    let (publisher, command_run) = match opened {
        Ok((publisher, run)) => {
            description.report_ignored();
            (Some(publisher), Some(run))
        }
        Err(error) if options.require => {
            print_message(format_args!(
                "{error:#}; the command was not run (--require)"
            ));
            return None;
        }
        Err(error) => {
            print_message(format_args!(
                "nothing is published, the command runs anyway: {error:#}"
            ));
            (None, None)
        }
    };
    let command_env = CommandEnv::new(options, command_run.as_ref(), env);
    command_env.report();
    if let Some(token) = command_run.and_then(|run| run.token) {
        description.redact_token(&token);
    }
    Some((publisher, command_env))
}

/// Publishes the last status, waits until everything is stored, and reports what is not.
async fn finish(
    publisher: &Publisher,
    change: StatusChange,
    within: Duration,
    signals: &mut Signals,
) -> io::Result<()> {
    let closed = tokio::select! {
        closed = publisher.finish(change, within) => closed,
        () = wait_for_end_signal(signals) => publisher.close(Duration::ZERO).await,
    };
    match closed {
        Ok(closed) => report_closed(&closed, publisher),
        Err(error) => print_message(format_args!("not everything was published: {error}")),
    }
    Ok(())
}

fn report_closed(closed: &Closed, publisher: &Publisher) {
    let Closed {
        in_redis,
        spooled,
        unsent,
        ..
    } = closed;
    let trouble = closed.trouble.as_deref().unwrap_or("time ran out");
    if *unsent > 0 {
        print_message(format_args!(
            "{unsent} events are lost, because they did not reach Redis: {trouble}"
        ));
    }
    if let Some(folder) = publisher.spool()
        && *spooled > 0
    {
        let spool = folder.parent().unwrap_or(folder);
        print_message(format_args!(
            "{spooled} events are not sent yet: {trouble}; they are in {}, send them with `runcast resend {}`",
            folder.display(),
            spool.display()
        ));
    }
    if *in_redis > 0 {
        print_message(format_args!(
            "{in_redis} events are in Redis but not yet stored in Postgres"
        ));
    }
}

/// Waits for a signal that asks to end, once the command has ended.
pub(crate) async fn wait_for_end_signal(signals: &mut Signals) {
    loop {
        match signals.next().await.map(ReceivedSignal::signal) {
            Ok(Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT)) => {
                return;
            }
            Ok(_) => {}
            // Without a way to read signals there is nothing to wait for: they are blocked.
            Err(error) => {
                tracing::warn!(%error, "signals cannot be read");
                return std::future::pending().await;
            }
        }
    }
}
