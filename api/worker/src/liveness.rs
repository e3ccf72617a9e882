//! The one worker that holds the lease marks silent agents as stale or lost, and queues the hourly
//! jobs.
//!
//! Every few seconds it renews the lease and scans each partition once; only agents whose state has
//! changed cost more. An agent is stale after 15 s of silence and lost after 30 s, and so are its
//! variation and run, until the agent publishes or sends a heartbeat again
//! ([`runcast_common::presence::liveness`]).
//!
//! A change is removed from Redis only after Postgres has committed it. So if the worker dies in
//! between, its successor does the work again. The transaction checks the fencing number of the
//! lease, so a worker that has lost the lease changes nothing.
//!
//! Agents write to the keys that are scanned, and may write anything. What is no heartbeat is
//! removed and counted. A partition that cannot be scanned does not keep the others from it, and
//! one with more agents than a scan returns is scanned again once all others had their turn, for at
//! most [`scan_interval`].
//!
//! Every [`RECALL_INTERVAL`], and at first, the holder adds the agents that Postgres takes for
//! alive to Redis: so those that died together with the memory of Redis are found too.

use std::time::Duration;

use runcast_common::log_limit::LogLimit;
use runcast_common::presence::heartbeat::{self, Health};
use runcast_common::presence::liveness::{self, LastHeard, LivenessThresholds, SilentAgents};
use runcast_common::presence::run_update::{self, AgentUpdate, RunUpdate};
use runcast_common::protocol::keys::{HeartbeatKeys, Keys, PARTITION_COUNT};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::error::TaskError;
use crate::jobs;
use crate::worker::Worker;
use runcast_store::agents::{Changes, Swept};
use runcast_store::leases::Lease;

/// The name of the lease.
const LEASE_NAME: &str = "worker";

/// How often jobs are put into the queue.
const SCHEDULE_INTERVAL: Duration = Duration::from_secs(3600);

/// How often Redis is given the agents that are alive.
const RECALL_INTERVAL: Duration = Duration::from_secs(300);

/// Agents that one query for them returns.
const PAGE_AGENTS: u16 = 1000;

static REMOVED_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));
static FAILED_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// How the scan of a partition ended.
enum Scan {
    Done,
    /// A bound was reached.
    HasMore,
    /// The lease is no longer held.
    Fenced,
}

/// How long the lease lasts if it is not renewed. Together with [`scan_interval`] it is shorter
/// than the gap between two scans that would restart the silence of all agents. 12 s by default.
fn lease_life(silence: &LivenessThresholds) -> Duration {
    silence.lost * 2 / 5
}

/// How often the holder scans, and the other workers try to get the lease. 3 s by default.
fn scan_interval(silence: &LivenessThresholds) -> Duration {
    silence.lost / 10
}

/// Watches agents until `stop`, whenever `owner`, an id of this process alone, holds the lease.
/// After a failure the lease expires, unless another call renews it.
pub(crate) async fn watch_agents(
    worker: &Worker,
    owner: Uuid,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let silence = &worker.settings.silence;
    let mut holder: Option<LeaseHolder> = None;
    let mut ticks = tokio::time::interval(scan_interval(silence));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Get or renew the lease.
        let lease = worker
            .store
            .take_lease(LEASE_NAME, owner, lease_life(silence))
            .await?;
        holder = match (lease, holder) {
            (None, None) => None,
            (None, Some(_)) => {
                info!("another worker watches agents now");
                None
            }
            (Some(lease), Some(before)) if before.lease == lease => Some(before),
            (Some(lease), _) => {
                info!(token = lease.token, "this worker watches agents now");
                Some(LeaseHolder::new(lease))
            }
        };
        // Do what is due under it.
        if let Some(current) = &mut holder
            && !current.round(worker).await?
        {
            warn!(
                token = current.lease.token,
                "the lease has passed to another worker; nothing was changed"
            );
            holder = None;
        }
    }
    if let Some(holder) = holder {
        worker.store.release_lease(&holder.lease).await?;
    }
    Ok(())
}

/// The lease, and when what is done under it is due.
struct LeaseHolder {
    lease: Lease,
    schedule_at: Instant,
    recall_at: Instant,
}

impl LeaseHolder {
    fn new(lease: Lease) -> Self {
        let now = Instant::now();
        Self {
            lease,
            schedule_at: now,
            recall_at: now,
        }
    }

    /// Queues jobs and scans all partitions. Returns false if the lease is no longer held.
    async fn round(&mut self, worker: &Worker) -> Result<bool, TaskError> {
        let now = Instant::now();
        // Queue the hourly jobs.
        if now >= self.schedule_at {
            if !worker
                .store
                .schedule(&self.lease, &jobs::HOURLY_JOBS, SCHEDULE_INTERVAL)
                .await?
            {
                return Ok(false);
            }
            self.schedule_at = now + SCHEDULE_INTERVAL;
        }
        let recall = now >= self.recall_at;
        let alive = if recall {
            read_alive_agents(worker).await?
        } else {
            Vec::new()
        };
        let mut partitions: Vec<usize> = (0..PARTITION_COUNT).collect();
        let mut is_first = true;
        while !partitions.is_empty() {
            let mut left = Vec::new();
            for partition in partitions {
                let keys = worker.keys.heartbeat_keys(partition);
                let alive = alive.iter().filter(|_| is_first);
                let in_partition = alive.filter(|(_, run)| Keys::partition(*run) == partition);
                let alive: Vec<Uuid> = in_partition.map(|(agent, _)| *agent).collect();
                match self.scan(worker, &keys, &alive).await {
                    Ok(Scan::Done) => {}
                    Ok(Scan::HasMore) => left.push(partition),
                    Ok(Scan::Fenced) => return Ok(false),
                    Err(TaskError::Redis(error)) if !error.is_outage() => {
                        worker.metrics.count_failed_scan();
                        if let Some(scans) = FAILED_LOG.admit(1) {
                            warn!(%error, partition, scans,
                                "cannot look for silent agents of a partition");
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            is_first = false;
            let is_late = now.elapsed() >= scan_interval(&worker.settings.silence);
            partitions = if is_late { Vec::new() } else { left };
        }
        if recall {
            self.recall_at = now + RECALL_INTERVAL;
        }
        Ok(true)
    }

    /// Scans a partition, after adding the agents that Postgres takes for alive.
    async fn scan(
        &self,
        worker: &Worker,
        keys: &HeartbeatKeys,
        alive: &[Uuid],
    ) -> Result<Scan, TaskError> {
        // Find agents that were silent for too long, or came back.
        let silent = liveness::find_silent(&worker.redis, keys, &worker.settings.silence).await?;
        worker.metrics.count_skipped(silent.removed);
        if let Some(removed) = REMOVED_LOG.admit(silent.removed) {
            warn!(
                removed,
                key = keys.last_heartbeats,
                "removed from the heartbeats what is none: an agent writes to Redis by itself"
            );
        }
        liveness::assume_alive(&worker.redis, keys, alive, silent.now).await?;
        Ok(match self.commit(worker, keys, &silent).await? {
            false => Scan::Fenced,
            true if silent.has_more => Scan::HasMore,
            true => Scan::Done,
        })
    }

    /// Stores and publishes what a scan found. Returns false if the lease is no longer held.
    async fn commit(
        &self,
        worker: &Worker,
        keys: &HeartbeatKeys,
        silent: &SilentAgents,
    ) -> Result<bool, TaskError> {
        let (lost, stale): (Vec<LastHeard>, Vec<LastHeard>) = silent
            .silent
            .iter()
            .partition(|(_, heard)| silent.is_lost(*heard, &worker.settings.silence));
        let ids = |heard: &[LastHeard]| heard.iter().map(|(agent, _)| *agent).collect::<Vec<_>>();
        let changes = Changes {
            alive: heartbeat::read_agents(&worker.redis, &worker.keys, &ids(&silent.returned))
                .await?,
            stale: ids(&stale),
            lost: ids(&lost),
        };
        if !silent.returned.is_empty() || !changes.is_empty() {
            match worker.store.sweep(&self.lease, &changes).await? {
                Swept::Fenced => return Ok(false),
                Swept::Done(updates) => announce(worker, &updates).await,
            }
        }
        // Only now, so that no change is lost if the worker dies before.
        liveness::remove_unchanged(&worker.redis, &keys.returned, &silent.returned).await?;
        liveness::remove_unchanged(&worker.redis, &keys.last_heartbeats, &lost).await?;
        Ok(true)
    }
}

/// Publishes what changed to the viewers of each run and to the feed of all runs. These are hints:
/// Postgres holds the truth.
async fn announce(worker: &Worker, updates: &[RunUpdate]) {
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
    let published = async {
        for update in updates {
            run_update::publish_to_viewers(&worker.redis, &worker.keys, update).await?;
        }
        run_update::publish_to_feed(&worker.redis, &worker.keys, updates).await
    };
    if let Err(error) = published.await {
        debug!(%error, "cannot announce status changes");
    }
}

/// The agents that Postgres takes for alive, with their runs.
async fn read_alive_agents(worker: &Worker) -> Result<Vec<(Uuid, Uuid)>, TaskError> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(Uuid::nil(), |(agent, _)| *agent);
        let page = worker.store.living_agents(after, PAGE_AGENTS).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
