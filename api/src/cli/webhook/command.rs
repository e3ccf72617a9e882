//! `runcastd webhook`: manages webhooks and their deliveries, for the operator.
//!
//! `test` waits for a worker to send the delivery: as long as the receiver may take, and
//! [`TEST_MARGIN`] more.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use runcast_common::protocol::limits::MAX_LABELS;
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::webhook_deliveries::DeliveryFilter;
use runcast_store::webhooks::{MAX_WEBHOOKS, NewWebhook};
use runcast_webhooks::delivery::NOTIFIED_STATUSES;
use runcast_webhooks::settings::WebhookSettings;
use runcast_webhooks::signature;
use tokio::time::{Instant, sleep};
use url::Url;
use uuid::Uuid;

use super::tables;
use crate::cli::escape::escaped;
use crate::cli::label::{label, labels_object};
use crate::cli::output::json_line;

/// How long `test` waits beyond the time that the receiver has: for a worker to find the delivery
/// and to store its result.
const TEST_MARGIN: Duration = Duration::from_secs(5);

/// How often `test` reads the delivery.
const TEST_INTERVAL: Duration = Duration::from_millis(100);

/// What `--help` says beyond the commands.
pub const WEBHOOK_HELP: &str = "\
A delivery is a POST of one JSON object: `type` (such as run.failed), `timestamp`, and `data` with
run, name, labels, status, `was` (the status before), sealed, missing, failure, and times. It is
signed as the Standard Webhooks specification says (headers webhook-id, webhook-timestamp and
webhook-signature): receivers check it with the library `standardwebhooks` of their language and the
secret that `add` prints once.

Any 2xx within RUNCAST_WEBHOOK_TIMEOUT (10 s) counts as received. Everything else is retried for a
day, ever more rarely; 410 disables the webhook. A delivery may arrive twice, then with the same
webhook-id (msg_ and the id of the delivery), and deliveries may arrive out of order.

Webhooks connect to public addresses by https alone, and follow no redirect. RUNCAST_WEBHOOK_ALLOW
names hosts and networks inside the cluster that are allowed too, also by http. Set it for workers,
for gateways, and for this command.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Create one; print its id and its secret, which cannot be shown again
    Add {
        /// Where to send, such as https://host/path
        url: Url,
        /// What to send: running, succeeded, failed, cancelled, lost; sealed or incomplete, once it
        /// is known whether all of an ended run is stored. May be repeated
        #[arg(long = "on", value_name = "STATUS", default_values = ["failed", "lost", "incomplete"],
              value_parser = clap::builder::PossibleValuesParser::new(NOTIFIED_STATUSES))]
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
    /// Let a worker send a test, and print its result
    Test {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Send nothing until it is enabled again; changes meanwhile are not sent later
    Disable {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Send again, also deliveries that wait since it was disabled
    Enable {
        /// Its id, from `list`
        id: Uuid,
    },
    /// Delete one with all its deliveries
    Remove {
        /// Its id, from `list`
        id: Uuid,
        /// Confirm
        #[arg(long)]
        yes: bool,
    },
    /// List deliveries, newest first, each with its last attempt
    Deliveries {
        /// Only those of this webhook
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
    /// Show one delivery: its body and all its attempts
    Show {
        /// Its id, from `deliveries`
        delivery: Uuid,
    },
    /// Send an ended delivery again with the same webhook-id, or all dead ones of a webhook
    Replay {
        /// Its id, from `deliveries`
        #[arg(required_unless_present = "dead_of")]
        delivery: Option<Uuid>,
        /// All dead deliveries of this webhook
        #[arg(long, value_name = "WEBHOOK", conflicts_with = "delivery")]
        dead_of: Option<Uuid>,
    },
}

impl Webhook {
    /// Runs the command and writes its result to `out`.
    pub async fn run(
        self,
        store: &Store,
        settings: &WebhookSettings,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let by = &Actor::operator();
        match self {
            Self::Add {
                url,
                statuses,
                labels,
            } => add(store, settings, &url, &statuses, labels, out).await,
            Self::List { json } => {
                let list = store.webhooks().await?;
                if json {
                    list.iter().try_for_each(|webhook| json_line(webhook, out))
                } else {
                    tables::webhooks(&list, out)
                }
            }
            Self::Test { id } => test(store, settings, id, out).await,
            Self::Disable { id } => {
                check_exists(id, store.enable_webhook(by, id, false).await?)?;
                Ok(writeln!(out, "webhook {id} is disabled")?)
            }
            Self::Enable { id } => {
                check_exists(id, store.enable_webhook(by, id, true).await?)?;
                Ok(writeln!(out, "webhook {id} is enabled")?)
            }
            Self::Remove { id, yes: false } => {
                bail!(
                    "this deletes webhook {id} and the log of its deliveries: add --yes to confirm"
                )
            }
            Self::Remove { id, yes: true } => {
                check_exists(id, store.remove_webhook(by, id).await?)?;
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
                    list.iter()
                        .try_for_each(|delivery| json_line(delivery, out))
                } else {
                    tables::deliveries(&list, out)
                }
            }
            Self::Show { delivery } => {
                let log = store.delivery_log(delivery).await?;
                let (body, attempts) = log.with_context(|| {
                    format!("there is no delivery {delivery}; see `runcastd webhook deliveries`")
                })?;
                tables::delivery(&body, attempts, out)
            }
            Self::Replay { delivery, dead_of } => {
                let count = store.replay_deliveries(by, delivery, dead_of).await?;
                if let (Some(id), 0) = (delivery, count) {
                    bail!(
                        "there is no delivery {id} that has ended; see `runcastd webhook deliveries`"
                    );
                }
                Ok(writeln!(out, "{count} deliveries are due again")?)
            }
        }
    }
}

fn check_exists(id: Uuid, exists: bool) -> anyhow::Result<()> {
    if !exists {
        bail!("there is no webhook {id}; see `runcastd webhook list`");
    }
    Ok(())
}

async fn add(
    store: &Store,
    settings: &WebhookSettings,
    url: &Url,
    statuses: &[String],
    labels: Vec<(String, String)>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    settings.allowed.check(url).context("this address")?;
    if labels.len() > MAX_LABELS {
        bail!("{} labels are over the limit of {MAX_LABELS}", labels.len());
    }
    let labels = labels_object(labels);
    let secret = signature::new_secret()?;
    let new = NewWebhook {
        url: url.as_str(),
        secret: &secret,
        statuses,
        labels: &labels,
    };
    let id = store.create_webhook(&Actor::operator(), &new).await?;
    let id = id.with_context(|| {
        format!("there are {MAX_WEBHOOKS} webhooks, which is the limit: remove one")
    })?;
    writeln!(out, "{id}\n{}", signature::encode_secret(&secret).expose())?;
    Ok(())
}

/// A worker sends the test as it sends any other delivery: from where it runs, with its settings.
async fn test(
    store: &Store,
    settings: &WebhookSettings,
    id: Uuid,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let delivery = store.test_webhook(&Actor::operator(), id).await?;
    let delivery = delivery
        .with_context(|| format!("there is no webhook {id}; see `runcastd webhook list`"))?;
    let deadline = Instant::now() + settings.timeout + TEST_MARGIN;
    let filter = DeliveryFilter {
        only: Some(delivery),
        limit: 1,
        ..DeliveryFilter::default()
    };
    loop {
        let deliveries = store.deliveries(&filter).await?;
        let sent = deliveries.first();
        let sent = sent.context("the webhook was removed in the meantime")?;
        let took = sent.took_ms.unwrap_or_default();
        match (&sent.error, sent.attempts) {
            (Some(error), _) => bail!("not delivered: {} ({took} ms)", escaped(error)),
            (None, 1..) => return Ok(writeln!(out, "delivered in {took} ms")?),
            (None, _) if Instant::now() > deadline => {
                bail!(
                    "no worker sent it in time: does one run, and is the webhook enabled and not on hold?"
                )
            }
            (None, _) => sleep(TEST_INTERVAL).await,
        }
    }
}
