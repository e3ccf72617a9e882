//! Starts publishing for a command: at once, later, or not at all, under the rule that the command
//! runs in any case.
//!
//! With a spool folder, output is spooled even if the gateway or Redis is unreachable. A run that
//! cannot be created now is spooled under an id chosen here, with what is needed to create it;
//! `runcast resend` does that.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use runcast_common::config::Env;
use runcast_publisher::gateway_client::{GatewayClient, NewRun, Session};
use runcast_publisher::spool::directory;
use runcast_publisher::{Options as PublisherOptions, Publisher};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::command_env::CommandRun;
use super::description::CommandDescription;
use super::run::{CONNECT_TIMEOUT, WrapOptions};
use crate::console::print_message;
use crate::deferred_run::DeferredRun;

/// Starts publishing, and prints where to watch, or where the spool is. Returns also what the
/// command gets of the run.
pub(super) async fn open_publisher(
    options: &WrapOptions,
    description: &CommandDescription,
    env: &impl Env,
) -> anyhow::Result<(Publisher, CommandRun)> {
    let give_up_at = Instant::now() + CONNECT_TIMEOUT;
    let overdue = || {
        anyhow::anyhow!(
            "no answer within {} s, see RUNCAST_URL",
            CONNECT_TIMEOUT.as_secs()
        )
    };
    let joined = timeout(CONNECT_TIMEOUT, join(options, description, env)).await;
    let session = match (
        joined.unwrap_or_else(|_elapsed| Err(overdue())),
        &options.spool,
    ) {
        (Ok(session), _) => session,
        (Err(error), Some(spool)) if !options.require => {
            return spool_only(options, description, spool, &error);
        }
        (Err(error), _) => return Err(error),
    };
    let hint = "REDIS_URL (or the address that the gateway returns) does not work";
    let target = session.target(options.variation);
    let publisher = Publisher::start(&target, publisher_options(options)).context(hint)?;
    let remaining = give_up_at.saturating_duration_since(Instant::now());
    match publisher
        .connected(remaining.max(Duration::from_secs(1)))
        .await
    {
        Ok(()) => {}
        Err(error) if publisher.spool().is_some() && !options.require => print_message(
            format_args!("{hint}; events are spooled, and sent as soon as it does: {error}"),
        ),
        Err(error) => return Err(error).context(hint),
    }
    print_message(format_args!("watch at {}", session.page));
    let command_run = CommandRun {
        run: session.run,
        variation: options.variation,
        token: session.token.filter(|_| options.hands_on_token),
    };
    Ok((publisher, command_run))
}

async fn join(
    options: &WrapOptions,
    description: &CommandDescription,
    env: &impl Env,
) -> anyhow::Result<Session> {
    let client = GatewayClient::from_env(env)?;
    Ok(match options.run {
        Some(run) => client.join_run(run).await?,
        None => {
            client
                .create_run(&new_run(options, description), Uuid::now_v7())
                .await?
        }
    })
}

fn new_run(options: &WrapOptions, description: &CommandDescription) -> NewRun {
    NewRun {
        name: description.name.clone(),
        variations: options.variations,
        labels: description.labels.clone(),
    }
}

fn publisher_options(options: &WrapOptions) -> PublisherOptions {
    match &options.spool {
        Some(folder) => PublisherOptions::default().with_spool(folder),
        None => PublisherOptions::default(),
    }
}

/// Spools without the gateway.
fn spool_only(
    options: &WrapOptions,
    description: &CommandDescription,
    spool: &Path,
    error: &anyhow::Error,
) -> anyhow::Result<(Publisher, CommandRun)> {
    let run = options.run.unwrap_or_else(Uuid::now_v7);
    let folder = directory::producer_folder(spool, run, options.variation);
    let unusable = || {
        format!(
            "{error:#}, and the spool {} cannot be used",
            spool.display()
        )
    };
    if options.run.is_none() {
        let deferred = DeferredRun {
            run: new_run(options, description),
            created: None,
        };
        deferred.write(&folder).with_context(unusable)?;
    }
    let publisher_options = publisher_options(options);
    let publisher = Publisher::offline(run, options.variation, folder.clone(), publisher_options);
    anyhow::ensure!(publisher.spool().is_some(), unusable());
    print_message(format_args!(
        "{error:#}; events are spooled in {}, send them with `runcast resend {}`",
        folder.display(),
        spool.display()
    ));
    // The gateway does not know a new run by this id. The command sees by it that it is published.
    let command_run = CommandRun {
        run,
        variation: options.variation,
        token: None,
    };
    Ok((publisher, command_run))
}
