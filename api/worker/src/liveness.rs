//! The one worker that holds the lease: who lives, and when jobs are due.
//!
//! Every few seconds it renews the lease and looks at each partition once; only agents whose state has
//! changed cost more. An agent is doubted after 15 s of silence and lost after 30 s, and so are its
//! variation and run, until it is heard again ([`runcast_common::fleet`]). Redis is told only after
//! Postgres has committed, so a worker that dies between leaves the work to its successor, and the
//! successor's transaction to the fencing number of its lease.
//!
//! Every [`RECALL`], and at first, Redis is reminded of the agents that Postgres takes for living: so
//! those that died together with Redis' memory are found too.

use std::time::Duration;

use runcast_common::presence::heartbeat::{self, Health};
use runcast_common::presence::liveness::{self, LastHeard, LivenessThresholds, SilentAgents};
use runcast_common::presence::run_update::{self, AgentUpdate, RunUpdate};
use runcast_common::protocol::keys::{FleetKeys, Keys, PARTITIONS};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::jobs;
use crate::context::Worker;
use crate::error::TaskError;
use runcast_store::agents::{Changes, Swept};
use runcast_store::leases::Lease;

/// The name of the lease.
const NAME: &str = "worker";

/// How long the lease lasts without being renewed, for this silence: with [`every`] below the gap between two looks that
/// would make everybody's silence begin anew. 12 s by default.
fn lease(silence: &LivenessThresholds) -> Duration {
    silence.lost * 2 / 5
}

/// How often the holder looks, and the others try to become it. 3 s by default.
fn every(silence: &LivenessThresholds) -> Duration {
    silence.lost / 10
}

/// How often jobs are put into the queue.
const SCHEDULE: Duration = Duration::from_secs(3600);

/// How often Redis is reminded of living agents.
const RECALL: Duration = Duration::from_secs(300);

/// Agents read at once to remind Redis of them.
const PAGE: u16 = 1000;

/// Watches until told to stop, whenever `me`, an id of this process alone, holds the lease.
///
/// # Errors
/// [`TaskError`]; the lease then ends by itself, unless it is renewed by another call.
pub async fn watch(worker: &Worker, me: Uuid, stop: &CancellationToken) -> Result<(), TaskError> {
    let mut held: Option<HeldLease> = None;
    let mut ticks = tokio::time::interval(every(&worker.rules.silence));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let lease = worker
            .store
            .take_lease(NAME, me, lease(&worker.rules.silence))
            .await?;
        held = match (lease, held) {
            (None, None) => None,
            (None, Some(_)) => {
                info!("another worker watches agents now");
                None
            }
            (Some(lease), Some(before)) if before.lease == lease => Some(before),
            (Some(lease), _) => {
                info!(token = lease.token, "this worker watches agents now");
                Some(HeldLease::new(lease))
            }
        };
        if let Some(holder) = &mut held
            && !holder.round(worker).await?
        {
            warn!(
                token = holder.lease.token,
                "the lease has passed to another worker; nothing was changed"
            );
            held = None;
        }
    }
    if let Some(holder) = held {
        worker.store.release_lease(&holder.lease).await?;
    }
    Ok(())
}

/// The lease, and what is due under it.
struct HeldLease {
    lease: Lease,
    schedule: Instant,
    recall: Instant,
}

impl HeldLease {
    fn new(lease: Lease) -> Self {
        let now = Instant::now();
        Self {
            lease,
            schedule: now,
            recall: now,
        }
    }

    /// False if the lease is no longer held.
    async fn round(&mut self, worker: &Worker) -> Result<bool, TaskError> {
        let now = Instant::now();
        if now >= self.schedule {
            if !worker
                .store
                .schedule(&self.lease, &jobs::NAMES, SCHEDULE)
                .await?
            {
                return Ok(false);
            }
            self.schedule = now + SCHEDULE;
        }
        let recall = now >= self.recall;
        let living = if recall {
            living(worker).await?
        } else {
            Vec::new()
        };
        for partition in 0..PARTITIONS {
            let keys = worker.keys.fleet(partition);
            let look = liveness::look(&worker.redis, &keys, &worker.rules.silence).await?;
            if recall {
                let here = living
                    .iter()
                    .filter(|(_, run)| Keys::partition(*run) == partition);
                let here: Vec<Uuid> = here.map(|(agent, _)| *agent).collect();
                liveness::expect(&worker.redis, &keys, &here, look.now).await?;
            }
            if !self.note(worker, &keys, &look).await? {
                return Ok(false);
            }
        }
        if recall {
            self.recall = now + RECALL;
        }
        Ok(true)
    }

    /// Writes down what a look showed. False if the lease is no longer held.
    async fn note(
        &self,
        worker: &Worker,
        keys: &FleetKeys,
        look: &SilentAgents,
    ) -> Result<bool, TaskError> {
        let (lost, stale): (Vec<LastHeard>, Vec<LastHeard>) = look
            .silent
            .iter()
            .partition(|(_, heard)| look.is_lost(*heard, &worker.rules.silence));
        let ids = |heard: &[LastHeard]| heard.iter().map(|(agent, _)| *agent).collect::<Vec<_>>();
        let changes = Changes {
            alive: heartbeat::about(&worker.redis, &worker.keys, &ids(&look.news)).await?,
            stale: ids(&stale),
            lost: ids(&lost),
        };
        if !look.news.is_empty() || !changes.is_empty() {
            match worker.store.sweep(&self.lease, &changes).await? {
                Swept::Fenced => return Ok(false),
                Swept::Done(updates) => tell(worker, &updates).await,
            }
        }
        liveness::forget(&worker.redis, &keys.news, &look.news).await?;
        liveness::forget(&worker.redis, &keys.pulses, &lost).await?;
        Ok(true)
    }
}

/// Tells viewers of a run, and whoever follows all runs, what changed. They are hints: Postgres has it.
async fn tell(worker: &Worker, updates: &[RunUpdate]) {
    for update in updates {
        for agent in &update.agents {
            if agent.health == Health::Lost {
                let AgentUpdate {
                    agent, variation, ..
                } = agent;
                info!(%agent, run = %update.run, variation, "an agent is lost");
            }
        }
    }
    let told = async {
        for update in updates {
            run_update::tell(&worker.redis, &worker.keys, update).await?;
        }
        run_update::announce(&worker.redis, &worker.keys, updates).await
    };
    if let Err(error) = told.await {
        debug!(%error, "cannot tell what changed");
    }
}

/// The agents that live as far as Postgres knows, with their runs.
async fn living(worker: &Worker) -> Result<Vec<(Uuid, Uuid)>, TaskError> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(Uuid::nil(), |(agent, _)| *agent);
        let page = worker.store.living_agents(after, PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
