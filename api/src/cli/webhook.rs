//! `runcastd webhook`: who is told of which changes of runs, and what became of it, for the operator.
//!
//! Addresses and answers of receivers come from outside, so they are shown escaped.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use runcast_common::protocol::limits::{MAX_LABEL_BYTES, MAX_LABELS};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use url::Url;
use uuid::Uuid;

use runcast_store::Store;
use runcast_store::webhook_deliveries::{Delivery, DeliveryFilter};
use runcast_store::webhooks::{self, MOST_WEBHOOKS, NewWebhook};
use runcast_webhooks::delivery::{RetryPolicy, STATUSES};
use runcast_webhooks::signature;

/// How long `test` waits beyond the time that a receiver has: for a worker to look, and to write down.
const TEST_MARGIN: Duration = Duration::from_secs(5);

/// How often `test` looks.
const TEST_EVERY: Duration = Duration::from_millis(100);

/// Longest text of a receiver in a table.
const TEXT_WIDTH: usize = 60;

/// What `--help` says beyond the commands.
pub const HELP: &str = "\
A delivery is a POST of one JSON object: `type` (such as run.failed), `timestamp`, and `data` with
run, name, labels, status, `was` (the status before), sealed, missing, failure, and times. It is
signed by the Standard Webhooks specification (headers webhook-id, webhook-timestamp and
webhook-signature), so receivers can check it with the library `standardwebhooks` of their language
and the secret that `add` shows once.

Any 2xx in time (RUNCAST_WEBHOOK_TIMEOUT, 10 s) counts as received. Everything else is tried again
for a day, ever more rarely; 410 disables the webhook. A delivery may come twice, then with the same
webhook-id (msg_ and the id of the delivery), and deliveries need not come in order.

Only public addresses are connected to, by https, and no redirect is followed. RUNCAST_WEBHOOK_ALLOW
names hosts and networks inside the cluster that are allowed as well, also by http: it is a setting
of the workers, and of whoever makes the webhook.";

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Make one and print its id and its secret, which cannot be shown again
    Add {
        /// Where to send, such as https://host/path
        url: Url,
        /// Of what to tell: running, succeeded, failed, cancelled, lost; sealed or incomplete, when it is known
        /// whether all of an ended run is stored. May be repeated
        #[arg(long = "on", value_name = "STATUS", default_values = ["failed", "lost", "incomplete"],
              value_parser = clap::builder::PossibleValuesParser::new(STATUSES))]
        statuses: Vec<String>,
        /// Only runs with this label; may be repeated, then with all of them
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// List them, oldest first
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Let a worker send a test, and tell what came of it
    Test {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Send nothing until it is enabled again; what happens meanwhile is not told
    Disable {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Send again, also what waits since it was disabled
    Enable {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Remove one with all its deliveries
    Remove {
        /// Its id, from `list`
        id: Uuid,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// List deliveries, newest first, each with its last attempt
    Deliveries {
        /// Only of this webhook
        id: Option<Uuid>,
        /// Only those that are waiting, delivered or dead
        #[arg(long, value_parser = ["waiting", "delivered", "dead"])]
        state: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: u16,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one delivery: what it sends, and all its attempts
    Show {
        /// The delivery, from `deliveries`
        delivery: Uuid,
    },
    /// Send a delivery again that has ended, with the same webhook-id; or all dead ones of a webhook
    Replay {
        /// The delivery, from `deliveries`
        #[arg(required_unless_present = "dead_of")]
        delivery: Option<Uuid>,
        /// All dead deliveries of this webhook
        #[arg(long, value_name = "WEBHOOK", conflicts_with = "delivery")]
        dead_of: Option<Uuid>,
    },
}

/// A label as it is given on a command line.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or("expected NAME=VALUE, such as team=search")?;
    if name.len().max(value.len()) > MAX_LABEL_BYTES {
        return Err(format!(
            "name and value have {MAX_LABEL_BYTES} bytes at most"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl Webhook {
    /// Does it, and writes what there is to tell to `out`.
    ///
    /// # Errors
    /// In words for a person.
    pub async fn run(
        self,
        store: &Store,
        policy: &RetryPolicy,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        match self {
            Self::Add {
                url,
                statuses,
                labels,
            } => add(store, policy, &url, &statuses, labels, out).await,
            Self::List { json } => {
                let list = store.webhooks().await?;
                if json {
                    list.iter().try_for_each(|one| line(one, out))
                } else {
                    table(&list, out)
                }
            }
            Self::Test { id } => test(store, policy, id, out).await,
            Self::Disable { id } => {
                known(id, store.enable_webhook(id, false).await?)?;
                Ok(writeln!(out, "webhook {id} is disabled")?)
            }
            Self::Enable { id } => {
                known(id, store.enable_webhook(id, true).await?)?;
                Ok(writeln!(out, "webhook {id} is enabled")?)
            }
            Self::Remove { id, yes: false } => {
                bail!("this deletes webhook {id} and the log of its deliveries for good: add --yes")
            }
            Self::Remove { id, yes: true } => {
                known(id, store.remove_webhook(id).await?)?;
                Ok(writeln!(out, "webhook {id} is removed")?)
            }
            Self::Deliveries {
                id,
                state,
                limit,
                json,
            } => {
                let filter = DeliveryFilter {
                    webhook: id,
                    state,
                    limit,
                    ..DeliveryFilter::default()
                };
                let list = store.deliveries(&filter).await?;
                if json {
                    list.iter().try_for_each(|one| line(one, out))
                } else {
                    log(&list, out)
                }
            }
            Self::Show { delivery } => show(store, delivery, out).await,
            Self::Replay { delivery, dead_of } => {
                let count = store.replay_deliveries(delivery, dead_of).await?;
                if let (Some(id), 0) = (delivery, count) {
                    bail!(
                        "there is no delivery {id} that has ended; see `runcastd webhook deliveries`"
                    );
                }
                Ok(writeln!(out, "{count} put into line again")?)
            }
        }
    }
}

fn known(id: Uuid, found: bool) -> anyhow::Result<()> {
    if !found {
        bail!("there is no webhook {id}; see `runcastd webhook list`");
    }
    Ok(())
}

async fn add(
    store: &Store,
    policy: &RetryPolicy,
    url: &Url,
    statuses: &[String],
    labels: Vec<(String, String)>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    policy.allowed.check(url).context("this address")?;
    if labels.len() > MAX_LABELS {
        bail!("{} labels are over the limit of {MAX_LABELS}", labels.len());
    }
    let labels: Map<String, Value> = labels
        .into_iter()
        .map(|(name, value)| (name, Value::from(value)))
        .collect();
    let secret = signature::new_secret()?;
    let new = NewWebhook {
        url: url.as_str(),
        secret: &secret,
        statuses,
        labels: &labels,
    };
    let id = store.create_webhook(&new).await?;
    let id = id.with_context(|| {
        format!("there are {MOST_WEBHOOKS} webhooks, which is the limit: remove one")
    })?;
    writeln!(out, "{id}\n{}", signature::shown(&secret).expose())?;
    Ok(())
}

/// The worker sends it, as it would send any other: from where it runs, with its settings.
async fn test(
    store: &Store,
    policy: &RetryPolicy,
    id: Uuid,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let delivery = store.test_webhook(id).await?;
    let delivery = delivery
        .with_context(|| format!("there is no webhook {id}; see `runcastd webhook list`"))?;
    let deadline = Instant::now() + policy.timeout + TEST_MARGIN;
    let filter = DeliveryFilter {
        only: Some(delivery),
        limit: 1,
        ..DeliveryFilter::default()
    };
    loop {
        let found = store.deliveries(&filter).await?;
        let found = found.first().context("the webhook was removed meanwhile")?;
        let took = found.took_ms.unwrap_or_default();
        match (&found.error, found.attempts) {
            (Some(error), _) => bail!("not delivered: {} ({took} ms)", escaped(error)),
            (None, 1..) => return Ok(writeln!(out, "delivered in {took} ms")?),
            (None, _) if Instant::now() > deadline => {
                bail!(
                    "no worker has sent it in time: does one run, and is the webhook enabled and not on hold?"
                )
            }
            (None, _) => sleep(TEST_EVERY).await,
        }
    }
}

async fn show(store: &Store, delivery: Uuid, out: &mut impl Write) -> anyhow::Result<()> {
    let (body, tried) = store.delivery_log(delivery).await?.with_context(|| {
        format!("there is no delivery {delivery}; see `runcastd webhook deliveries`")
    })?;
    writeln!(out, "{}\n", escaped(&body))?;
    for one in tried {
        let status = one.status.map(|status| format!(", {status}"));
        let error = one.error.unwrap_or_else(|| "delivered".to_owned());
        writeln!(
            out,
            "{:>3}  {}  in {} ms{}: {}",
            one.number,
            one.at.format("%Y-%m-%dT%H:%M:%SZ"),
            one.took_ms,
            status.unwrap_or_default(),
            escaped(&error),
        )?;
    }
    Ok(())
}

fn line(one: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, one)?;
    Ok(writeln!(out)?)
}

fn escaped(text: &str) -> String {
    text.escape_debug().collect()
}

fn table(list: &[webhooks::Webhook], out: &mut impl Write) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(writeln!(out, "no webhooks")?);
    }
    writeln!(
        out,
        "{:<36}  {:<8}  {:>7}  {:>7}  URL, WHAT OF",
        "ID", "STATE", "WAITING", "DEAD"
    )?;
    for one in list {
        let state = match (one.enabled, one.held_until, one.failures) {
            (false, _, _) => "disabled",
            (true, Some(_), _) => "held",
            (true, None, 1..) => "failing",
            (true, None, _) => "ok",
        };
        let labels = one.labels.as_object().into_iter().flatten();
        let labels: String = labels
            .map(|(name, value)| format!(" {name}={}", value.as_str().unwrap_or_default()))
            .collect();
        let note = one.note.as_deref().map(|note| format!(" ({note})"));
        writeln!(
            out,
            "{}  {state:<8}  {:>7}  {:>7}  {} {}{}{}",
            one.id,
            one.waiting,
            one.dead,
            one.url,
            one.statuses.join(","),
            escaped(&labels),
            note.unwrap_or_default(),
        )?;
    }
    Ok(())
}

fn log(list: &[Delivery], out: &mut impl Write) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(writeln!(out, "no deliveries")?);
    }
    writeln!(
        out,
        "{:<36}  {:<20}  {:<14}  {:<36}  {:<9}  {:>5}  LAST ATTEMPT",
        "ID", "SINCE", "WHAT", "RUN", "STATE", "TRIED"
    )?;
    for one in list {
        let status = one.status.map(|status| format!("{status} "));
        let took = one.took_ms.map(|took| format!("in {took} ms"));
        let error = one.error.as_deref().map(|error| format!(": {error}"));
        let next = one.due_at.filter(|_| one.attempts > 0);
        let next = next.map(|due| format!(", next at {}", due.format("%H:%M:%SZ")));
        let error = escaped(&error.unwrap_or_default());
        let error: String = error.chars().take(TEXT_WIDTH).collect();
        writeln!(
            out,
            "{}  {}  {:<14}  {:<36}  {:<9}  {:>5}  {}{}{error}{}",
            one.id,
            one.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
            one.event,
            one.run_id.map(|run| run.to_string()).unwrap_or_default(),
            one.state,
            one.attempts,
            status.unwrap_or_default(),
            took.unwrap_or_default(),
            next.unwrap_or_default(),
        )?;
    }
    Ok(())
}
