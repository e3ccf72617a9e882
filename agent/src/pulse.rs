//! Signs of life of this process's publishers, from a thread of its own.
//!
//! Whether an agent lives must not depend on whether its runtime gets to run anything: a thread that all publishers of
//! the process share has a small runtime, and connections, for nothing else. One task for each publisher
//! reads how far it has come and tells Redis, every [`EVERY`](runcast_common::pulse::EVERY); it ends with its publisher. A pulse that cannot be
//! told is left out: the publisher itself says that Redis cannot be reached, and the next pulse says everything anew.
//!
//! Time: the usual Redis deadline for each of the three calls of a pulse.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::RngExt as _;
use runcast_common::connect::Redis;
use runcast_common::presence::heartbeat::{self, Agent, Heartbeat};
use runcast_common::protocol::event::{Kind, now_ms};
use runcast_common::protocol::keys::{Keys, RunKeys};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod usage;

use self::usage::Usage;
use crate::progress::Progress;
use crate::queue::Queue;

/// Pulses are drawn apart by this share of their distance, so that those of many agents that were started
/// together do not come together for ever.
const SPREAD: f64 = 0.1;

/// Runs nothing but pulses, for as long as the process lives.
static THREAD: LazyLock<Option<Handle>> = LazyLock::new(|| {
    let started = Builder::new_current_thread().enable_all().build();
    let started = started.and_then(|runtime| {
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("runcast-pulse".into());
        thread.spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    });
    started
        .inspect_err(
            |error| tracing::warn!(%error, "no thread for signs of life, this process gives none"),
        )
        .ok()
});

/// What a publisher's pulse tells of.
pub(crate) struct Life {
    pub(crate) redis: Redis,
    pub(crate) keys: Keys,
    pub(crate) run: RunKeys,
    pub(crate) variation: u16,
    pub(crate) producer: Uuid,
    pub(crate) queue: Arc<Queue>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) every: Duration,
    /// Cancelled when the publisher ends.
    pub(crate) ended: CancellationToken,
}

impl Life {
    /// Gives signs of life until the publisher ends, whatever the runtime of the caller does.
    pub(crate) fn begin(mut self) {
        let Some(thread) = THREAD.as_ref() else {
            return;
        };
        // A connection belongs to the runtime that made it.
        self.redis = self.redis.separate();
        let ended = self.ended.clone();
        thread.spawn(async move { ended.run_until_cancelled(self.beat()).await });
    }

    async fn beat(self) {
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
        let mut usage = Usage::new(std::process::id());
        let mut refused = false;
        loop {
            let pulse = self.pulse(&mut usage);
            let told = heartbeat::beat(&self.redis, &self.keys, &self.run, &agent, &pulse).await;
            match told {
                // As with rules for this user that are older than signs of life: nothing that passes.
                Err(error) if !error.is_outage() && !std::mem::replace(&mut refused, true) => {
                    tracing::warn!(run = %self.run.run, %error, "signs of life are refused");
                }
                Err(error) => {
                    tracing::debug!(run = %self.run.run, %error, "a sign of life was not told");
                }
                Ok(()) => refused = false,
            }
            let apart = 1.0 - rand::rng().random_range(0.0..SPREAD);
            sleep(self.every.mul_f64(apart)).await;
        }
    }

    fn pulse(&self, usage: &mut Usage) -> Heartbeat {
        let published = self.queue.last_seq();
        let durable = self.progress.borrow().durable;
        let time = now_ms();
        let used = usage.read();
        Heartbeat {
            kind: Kind::Heartbeat,
            variation: self.variation,
            time,
            agent: self.producer,
            published,
            unstored: published.saturating_sub(durable),
            quiet_ms: self.queue.shown_at().map(|at| time.saturating_sub(at)),
            rss: used.map(|used| used.rss),
            cpu: used.and_then(|used| used.cpu),
        }
    }
}
