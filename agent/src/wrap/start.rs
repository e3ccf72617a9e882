//! How publishing starts for a command: at once, later, or not at all, by the rule that the command
//! runs all the same.
//!
//! With a spool folder nothing that keeps us from the gateway or Redis keeps the output from being
//! spooled. A run that cannot be created now is spooled under an id chosen here, with what is needed
//! to create it later; `runcast resend` does.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use runcast_common::config::Env;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::shown::Shown;
use super::{Options, REACH};
use crate::api::{Client, NewRun, Session};
use crate::publisher::{Options as PublisherOptions, Publisher};
use crate::say;
use crate::spool::folder::{self, Planned};

/// Starts publishing, and says where to watch, or where the spool lies.
pub(super) async fn start(
    options: &Options,
    shown: &Shown,
    env: &impl Env,
) -> anyhow::Result<Publisher> {
    let give_up = Instant::now() + REACH;
    let overdue = || anyhow::anyhow!("no answer within {} s, see RUNCAST_URL", REACH.as_secs());
    let joined = timeout(REACH, join(options, shown, env)).await;
    let session = match (
        joined.unwrap_or_else(|_elapsed| Err(overdue())),
        &options.spool,
    ) {
        (Ok(session), _) => session,
        (Err(error), Some(spool)) if !options.require => {
            return spool_only(options, shown, spool, &error);
        }
        (Err(error), _) => return Err(error),
    };
    let hint = "REDIS_URL (or the address that the gateway hands out) does not serve";
    let target = session.target(options.variation);
    let publisher = Publisher::start(&target, publisher_options(options)).context(hint)?;
    let left = give_up.saturating_duration_since(Instant::now());
    match publisher.connected(left.max(Duration::from_secs(1))).await {
        Ok(()) => {}
        Err(error) if publisher.spool().is_some() && !options.require => say(format_args!(
            "{hint}; events are spooled and sent as soon as it does: {error}"
        )),
        Err(error) => return Err(error).context(hint),
    }
    say(format_args!("watch at {}", session.page));
    Ok(publisher)
}

async fn join(options: &Options, shown: &Shown, env: &impl Env) -> anyhow::Result<Session> {
    let client = Client::from_env(env)?;
    Ok(match options.run {
        Some(run) => client.join_run(run).await?,
        None => {
            client
                .create_run(&new_run(options, shown), Uuid::now_v7())
                .await?
        }
    })
}

fn new_run(options: &Options, shown: &Shown) -> NewRun {
    NewRun {
        name: shown.name.clone(),
        variations: options.variations,
        labels: shown.labels.clone(),
    }
}

fn publisher_options(options: &Options) -> PublisherOptions {
    match &options.spool {
        Some(folder) => PublisherOptions::default().spooled_in(folder),
        None => PublisherOptions::default(),
    }
}

/// Spools without a gateway.
fn spool_only(
    options: &Options,
    shown: &Shown,
    spool: &Path,
    error: &anyhow::Error,
) -> anyhow::Result<Publisher> {
    let run = options.run.unwrap_or_else(Uuid::now_v7);
    let lies = folder::of_producer(spool, run, options.variation);
    let unusable = || {
        format!(
            "{error:#}, and the spool {} cannot be used",
            spool.display()
        )
    };
    if options.run.is_none() {
        let planned = Planned {
            run: new_run(options, shown),
            created: None,
        };
        planned.write(&lies).with_context(unusable)?;
    }
    let chosen = publisher_options(options);
    let publisher = Publisher::offline(run, options.variation, lies.clone(), chosen);
    anyhow::ensure!(publisher.spool().is_some(), unusable());
    say(format_args!(
        "{error:#}; events are spooled in {}, send them by `runcast resend {}`",
        lies.display(),
        spool.display()
    ));
    Ok(publisher)
}
