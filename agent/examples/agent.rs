//! An agent that publishes everything it does: its answer while it is written, what it traces and
//! what the model used. It also follows the control commands of viewers.
//!
//! ```text
//! cargo run -p runcast-agent --example agent     # with RUNCAST_URL and RUNCAST_TOKEN
//! ```
//!
//! Within `runcast wrap` it joins the run of the wrap, which then reports the end.
//!
//! A list of words replaces the model; in a real agent `answer` is the stream of its API.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use runcast_common::config::ProcessEnv;
use runcast_common::protocol::event::{Action, Status, StatusChange};
use runcast_publisher::gateway_client::{CurrentRun, GatewayClient, NewRun};
use runcast_publisher::llm::{ModelText, TokenUse};
use runcast_publisher::tracing_layer::RuncastLayer;
use runcast_publisher::{Options, Publisher};
use runcast_redact::{EnvRedaction, Redactor, from_variables};
use tracing::{Instrument as _, info, info_span};
use tracing_subscriber::{filter::LevelFilter, prelude::*};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    runcast_common::connect::install_tls_provider();
    let client = GatewayClient::from_env(&ProcessEnv)?;
    let current = CurrentRun::from_env(&ProcessEnv)?;
    let session = match current {
        Some(current) => client.join_run(current.run).await?,
        None => {
            let run = NewRun::named("example agent");
            client.create_run(&run, uuid::Uuid::now_v7()).await?
        }
    };
    let variation = current.and_then(|current| current.variation);
    let target = session.target(variation.unwrap_or(0));
    let publisher = Publisher::start(&target, Options::default())?;

    // Events of `tracing` go to the run, without the secrets of the environment, and to the
    // terminal.
    let (redactor, _ignored) =
        from_variables(std::env::vars_os(), &EnvRedaction::Usual(Vec::new()));
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_filter(LevelFilter::WARN))
        .with(layer(&publisher, &redactor).with_filter(LevelFilter::INFO))
        .init();

    if variation.is_none() {
        publisher.status(&StatusChange::to(Status::Running)).await?;
    }
    let mut commands = publisher.commands();
    let end = tokio::select! {
        done = work(&publisher).instrument(info_span!("work", steps = 2)) => {
            done?;
            Status::Succeeded
        }
        command = async {
            loop {
                match commands.next().await {
                    Some(command) if command.action() == Action::Cancel => break command,
                    Some(command) => drop(command.refuse("it can only be cancelled").await),
                    // Only once the publisher has ended.
                    None => std::future::pending().await,
                }
            }
        } => {
            // The unfinished text was dropped, and has published what it had.
            command.done().await?;
            Status::Cancelled
        }
    };
    let within = Duration::from_secs(30);
    let closed = match variation {
        None => publisher.finish(StatusChange::to(end), within).await?,
        Some(_) => publisher.close(within).await?,
    };
    anyhow::ensure!(
        closed.unsent == 0,
        "not everything was published: {closed:?}"
    );
    Ok(())
}

fn layer(publisher: &Publisher, redactor: &Redactor) -> RuncastLayer {
    RuncastLayer::new(publisher)
        .with_redactor(redactor)
        .with_span_closes(true)
}

async fn work(publisher: &Publisher) -> anyhow::Result<()> {
    for step in 1..=2 {
        info!(step, "asking the model");
        let mut text = ModelText::new(publisher);
        text.forward(answer()).await?;
        text.finish_line().await?;
        let used = TokenUse::new("example-model", 120, 40);
        publisher.tokens(&used).await?;
    }
    Ok(())
}

/// The answer of a model, word by word.
fn answer() -> impl Stream<Item = Result<String, std::io::Error>> {
    let words = "Streams are rivers that remember where they have been.";
    let words = words.split_inclusive(' ').map(ToOwned::to_owned);
    stream::iter(words).then(|word| async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        Ok(word)
    })
}
