//! The command line of `runcastd`, and which code each command calls.

use clap::{Parser, Subcommand};
use runcast_common::config::{ConfigError, ProcessEnv};
use runcast_store::schema::SchemaError;

use super::dead_letter::DeadLetter;
use super::jobs::Jobs;
use super::output::with_store;
use super::recover::Recover;
use super::settings::SettingsArgs;
use super::token::Token;
use super::user::User;
use super::webhook::Webhook;
use super::worker_help;
use super::{check, migrate, serve, user, webhook};
use crate::app::process::Service;
use crate::app::signals::{self, Hangup};
use crate::dev;
use crate::settings::help;
use crate::settings::setting::Program;
use crate::settings::webhook_settings;

/// Exit code for a configuration or a schema that does not fit: EX_CONFIG of sysexits.
pub const CONFIG_EXIT_CODE: u8 = 78;

const EXIT_CODES: &str =
    "Exit codes: 0 stopped as asked, 78 wrong configuration or database schema, 1 anything else.";

/// Stores what runs print, and shows it to browsers, live and later.
#[derive(Debug, Parser)]
#[command(
    name = "runcastd",
    version,
    after_help = format!("{}\n{EXIT_CODES}", help::of_services()),
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, with a private Redis and Postgres where no address is given
    #[command(after_help = "It reads the settings of all services: see `runcastd --help`.")]
    Dev,
    /// Serve browsers and agents over HTTP; any number may run
    #[command(after_help = help::of(Program::Gateway))]
    Gateway,
    /// Store events from Redis in Postgres; any number may run
    #[command(after_help = help::of(Program::Persister))]
    Persister,
    /// Do scheduled work: retention, archive, webhooks, lost agents; any number may run
    #[command(after_help = worker_help::text())]
    Worker,
    /// Bring the database to this program's version
    Migrate,
    /// Show the settings that apply, and check that Redis and Postgres are fit for use
    Check,
    /// Show all settings with their defaults
    Settings(SettingsArgs),
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// Manage users: create, list, disable, roles, passwords
    #[command(subcommand, after_help = user::USER_HELP)]
    User(User),
    /// List, read again or drop what stood in a run's stream and was no event
    #[command(subcommand)]
    DeadLetter(DeadLetter),
    /// Show background jobs: counts, last and next runs, leases; retry or drop dead ones
    Jobs {
        #[command(subcommand)]
        command: Option<Jobs>,
    },
    /// Create runs again that Postgres does not know, as after a restore
    Recover(Recover),
    /// Manage webhooks, which send signed notifications when runs change
    #[command(subcommand, after_help = webhook::WEBHOOK_HELP)]
    Webhook(Webhook),
}

impl Cli {
    /// Runs the command. [`exit_code`] maps its error to an exit code.
    pub async fn run(self) -> anyhow::Result<()> {
        let env = ProcessEnv;
        match self.command {
            Command::Dev => dev::start::run(&env, signals::stop_token(Hangup::Stops)?).await,
            Command::Gateway => serve::run(&env, Service::Gateway).await,
            Command::Persister => serve::run(&env, Service::Persister).await,
            Command::Worker => serve::run(&env, Service::Worker).await,
            Command::Migrate => migrate::run(&env).await,
            Command::Check => check::run(&env).await,
            Command::Settings(command) => command.run(),
            Command::Token(command) => {
                with_store(&env, async |store, out| command.run(store, out).await).await
            }
            Command::User(command) => {
                with_store(&env, async |store, out| command.run(store, out).await).await
            }
            Command::DeadLetter(command) => {
                with_store(&env, async |store, out| command.run(store, out).await).await
            }
            Command::Jobs { command } => {
                let command = command.unwrap_or(Jobs::List);
                with_store(&env, async |store, out| command.run(store, out).await).await
            }
            Command::Recover(command) => {
                with_store(&env, async |store, out| command.run(&env, store, out).await).await
            }
            Command::Webhook(command) => {
                let settings = webhook_settings(&env)?;
                with_store(&env, async |store, out| {
                    command.run(store, &settings, out).await
                })
                .await
            }
        }
    }
}

/// The exit code for an error of [`Cli::run`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let is_config = error.chain().any(|cause| {
        let schema = cause.downcast_ref();
        matches!(
            schema,
            Some(SchemaError::Mismatch { .. } | SchemaError::Newer { .. })
        ) || cause.downcast_ref::<ConfigError>().is_some()
    });
    if is_config { CONFIG_EXIT_CODE } else { 1 }
}
