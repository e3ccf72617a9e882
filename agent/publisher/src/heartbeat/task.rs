//! Sends the heartbeats of this process's publishers, from a thread of its own.
//!
//! Whether an agent counts as alive must not depend on how busy its runtime is. So one thread,
//! shared by all publishers of the process, has a small runtime and connections for heartbeats
//! alone. One task per publisher reads how far it has come and sends that, by default every
//! [`HEARTBEAT_INTERVAL`](runcast_common::presence::heartbeat::HEARTBEAT_INTERVAL); it ends with
//! its publisher. Heartbeats go through the gateway also where events do not: agents of all runs
//! share the keys that hold them, so the Redis user of a run may not write there. A heartbeat that
//! cannot be sent is skipped: the publisher itself reports that it cannot publish, and the next
//! heartbeat contains everything anew.
//!
//! Time: that of a call of the gateway, or without one the usual Redis deadline for each of the
//! three calls of a heartbeat.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::RngExt as _;
use runcast_common::presence::heartbeat::{self, Agent, Heartbeat};
use runcast_common::protocol::event::{Kind, now_ms};
use runcast_common::protocol::keys::{Keys, RunKeys};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::usage::UsageSampler;
use crate::gateway_client::GatewayClient;
use crate::queue::event_queue::Queue;
use crate::sender::progress::Progress;
use crate::transport::selector::ActiveTransport;

/// Random share by which each interval is shortened, so that agents that were started together do
/// not keep sending their heartbeats together.
const MAX_JITTER_RATIO: f64 = 0.1;

/// The runtime for heartbeats, for as long as the process lives.
static HEARTBEAT_RUNTIME: LazyLock<Option<Handle>> = LazyLock::new(|| {
    let started = Builder::new_current_thread().enable_all().build();
    let started = started.and_then(|runtime| {
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("runcast-heartbeat".into());
        thread.spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    });
    started
        .inspect_err(
            |error| tracing::warn!(%error, "heartbeats cannot be sent: no thread could be started for them"),
        )
        .ok()
});

/// One publisher's heartbeats.
pub(crate) struct HeartbeatTask {
    /// The way that events take.
    pub(crate) active: watch::Receiver<ActiveTransport>,
    /// The gateway, if there is one.
    pub(crate) gateway: Option<GatewayClient>,
    pub(crate) keys: Keys,
    pub(crate) run: RunKeys,
    pub(crate) variation: u16,
    pub(crate) producer: Uuid,
    pub(crate) queue: Arc<Queue>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) interval: Duration,
    /// Cancelled when the publisher ends.
    pub(crate) ended: CancellationToken,
}

impl HeartbeatTask {
    /// Sends heartbeats until the publisher ends, independently of the caller's runtime.
    pub(crate) fn spawn(self) {
        let Some(runtime) = HEARTBEAT_RUNTIME.as_ref() else {
            return;
        };
        let ended = self.ended.clone();
        runtime.spawn(async move { ended.run_until_cancelled(self.run_until_dropped()).await });
    }

    async fn run_until_dropped(mut self) {
        let agent = Agent {
            run: self.run.run,
            variation: self.variation,
            host: nix::unistd::gethostname()
                .map(|host| host.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now_ms(),
        };
        let mut usage = UsageSampler::new(std::process::id());
        let mut is_rejected = false;
        let mut way = ActiveTransport::None;
        loop {
            // 1. The gateway, or the way that events take now, with connections of this runtime.
            if self.active.has_changed().unwrap_or(false) {
                let active = self.active.borrow_and_update().clone();
                way = match (active, &self.gateway, way) {
                    (ActiveTransport::Redis(_), Some(_), way @ ActiveTransport::Gateway(_)) => way,
                    (ActiveTransport::Redis(_), Some(client), _) => {
                        own_connections(&ActiveTransport::Gateway(Box::new(client.clone())))
                    }
                    (active, _, _) => own_connections(&active),
                };
            }
            // 2. Send.
            let heartbeat = self.heartbeat(&mut usage);
            let sent = match &way {
                ActiveTransport::None => match self.active.changed().await {
                    Ok(()) => {
                        self.active.mark_changed();
                        continue;
                    }
                    Err(_ended) => return,
                },
                ActiveTransport::Redis(redis) => {
                    let sent =
                        heartbeat::send(redis, &self.keys, &self.run, &agent, &heartbeat).await;
                    sent.map_err(|error| (error.is_outage(), error.to_string()))
                }
                ActiveTransport::Gateway(client) => {
                    let sent = client.heartbeat(&agent, &heartbeat).await;
                    sent.map_err(|error| (error.is_transient(), error.to_string()))
                }
            };
            match sent {
                // For example, the token has ended.
                Err((false, error)) if !std::mem::replace(&mut is_rejected, true) => {
                    tracing::warn!(run = %self.run.run, error, "heartbeats are rejected");
                }
                Err((_, error)) => {
                    tracing::debug!(run = %self.run.run, error, "a heartbeat could not be sent");
                }
                Ok(()) => is_rejected = false,
            }
            // 3. Wait.
            let factor = 1.0 - rand::rng().random_range(0.0..MAX_JITTER_RATIO);
            sleep(self.interval.mul_f64(factor)).await;
        }
    }

    fn heartbeat(&self, usage: &mut UsageSampler) -> Heartbeat {
        let published = self.queue.last_seq();
        let durable = self.progress.borrow().durable;
        let time = now_ms();
        let used = usage.sample();
        Heartbeat {
            kind: Kind::Heartbeat,
            variation: self.variation,
            time,
            agent: self.producer,
            published,
            unstored: published.saturating_sub(durable),
            quiet_ms: self.queue.last_text_at().map(|at| time.saturating_sub(at)),
            rss: used.map(|used| used.rss),
            cpu: used.and_then(|used| used.cpu),
        }
    }
}

/// The same way with its own connections: a connection belongs to the runtime that opened it.
fn own_connections(way: &ActiveTransport) -> ActiveTransport {
    match way {
        ActiveTransport::None => ActiveTransport::None,
        ActiveTransport::Redis(redis) => ActiveTransport::Redis(redis.with_new_connections()),
        ActiveTransport::Gateway(client) => match client.with_new_connections() {
            Ok(client) => ActiveTransport::Gateway(Box::new(client)),
            Err(error) => {
                tracing::warn!(%error, "heartbeats cannot be sent");
                ActiveTransport::None
            }
        },
    }
}
