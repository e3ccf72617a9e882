//! The ready queue: runs with unstored events, one Redis Stream per partition, read as a consumer
//! group.
//!
//! A ready entry is only a hint: a lost, duplicate or stale one does no harm, since the watermark
//! in Postgres decides what is stored. Every persister is a consumer of its own. Entries that a
//! consumer has not acknowledged within [`CLAIM_MIN_IDLE`] are claimed by any consumer, its own
//! ones included: Redis may have missed the acknowledgement.
//!
//! On a single server one blocking read serves all partitions. A cluster allows a command only one
//! slot, so there each partition has a consumer with a connection of its own. Either way the cost
//! of an idle queue does not depend on the number of runs.
//!
//! If the key of a partition is of another type, Redis refuses the read of all of them: then the
//! [`ReadyGuard`] removes it, and the next read goes on.
//!
//! Bounds: [`MAX_READ_ENTRIES`] per partition and reply.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;
use redis::Value;
use redis::aio::MultiplexedConnection;
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, PERSISTER_GROUP, Slot};
use runcast_common::redis;
use runcast_common::scripts::make_group;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::ready_entries::{ReadyRun, claimed_entries, group_by_run, read_entries};
use crate::ready_guard::ReadyGuard;

/// Entries that one read or claim takes from each partition.
const MAX_READ_ENTRIES: usize = 8;

/// How long one read blocks. It also bounds how late a missed shutdown is noticed.
const READ_BLOCK: Duration = Duration::from_secs(1);

/// How long Redis may take beyond [`READ_BLOCK`] before the connection counts as dead.
const REPLY_GRACE: Duration = Duration::from_secs(4);

/// The consumer of an entry that is unacknowledged for this long counts as dead: a cycle takes a
/// small part of that.
const CLAIM_MIN_IDLE: Duration = Duration::from_secs(5);

/// How often to claim such entries. With [`CLAIM_MIN_IDLE`] it bounds a takeover to 7 s.
const CLAIM_INTERVAL: Duration = Duration::from_secs(2);

/// What one read or claim returned.
#[derive(Debug)]
struct Claimed {
    /// None if nothing became ready within [`READ_BLOCK`].
    runs: Vec<ReadyRun>,
    /// They were taken over from another consumer.
    is_takeover: bool,
}

/// This persister as a consumer of some partitions.
#[derive(Debug)]
pub(crate) struct ReadyConsumer {
    redis: Redis,
    slot: Slot,
    streams: Vec<String>,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    claim_at: Instant,
    guard: ReadyGuard,
    partitions: Range<usize>,
}

impl ReadyConsumer {
    /// New consumers that together read all partitions.
    pub(crate) fn all(redis: &Redis, keys: &Keys, guard: &ReadyGuard) -> Vec<Self> {
        let consumer = Uuid::now_v7().to_string();
        let groups = redis.partition_groups().into_iter();
        groups
            .map(|partitions| Self {
                redis: redis.clone(),
                slot: Keys::slot(partitions.start),
                streams: partitions
                    .clone()
                    .map(|partition| keys.ready(partition))
                    .collect(),
                consumer: consumer.clone(),
                connection: None,
                claim_at: Instant::now(),
                guard: guard.clone(),
                partitions,
            })
            .collect()
    }

    /// Claims ready runs and sends them, whenever the channel has room, until `stop`. Failures are
    /// retried with a backoff.
    pub(crate) async fn run(
        mut self,
        claimed: mpsc::Sender<Vec<ReadyRun>>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let mut backoff = Backoff::for_connections();
        loop {
            // Dropped by `stop`: entries of a reply that is lost then are claimed like a dead
            // consumer's.
            let next = async {
                let permit = claimed.reserve().await.ok()?;
                Some((permit, self.next().await))
            };
            // The receiver lives for as long as its senders do.
            let Some(Some((permit, next))) = stop.run_until_cancelled(next).await else {
                return self;
            };
            // One partition must not stop the others that the same command reads.
            let next = match next {
                Err(error) if error.code() == Some("WRONGTYPE") => {
                    match self.check_partitions().await {
                        Ok(()) => Err(error),
                        Err(failed) => Err(failed),
                    }
                }
                next => next,
            };
            match next {
                Ok(claimed) => {
                    backoff.reset();
                    if claimed.is_takeover {
                        metrics.count_takeover(claimed.runs.len());
                    }
                    if !claimed.runs.is_empty() {
                        permit.send(claimed.runs);
                    }
                }
                Err(error) => {
                    drop(permit);
                    if let Some(outage) = error.outage() {
                        metrics.count_outage(outage);
                    }
                    if backoff.attempts() == 0 {
                        warn!(%error, "cannot read the ready queue; trying again");
                    } else {
                        debug!(%error, "still cannot read the ready queue");
                    }
                    let wait = tokio::time::sleep(backoff.next_wait());
                    if stop.run_until_cancelled(wait).await.is_none() {
                        return self;
                    }
                }
            }
        }
    }

    /// Removes the consumer from its groups, unless it has unacknowledged entries: Redis would
    /// forget those with it, and no other consumer could claim them.
    pub(crate) async fn deregister(mut self) {
        self.connection = None;
        match self.count_unacknowledged().await {
            Ok(0) => {}
            Ok(entries) => return debug!(entries, "left ready entries for others to claim"),
            Err(error) => return debug!(%error, "could not deregister the consumer"),
        }
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline
                .cmd("XGROUP")
                .arg(&["DELCONSUMER", stream, PERSISTER_GROUP, &self.consumer]);
        }
        let removed = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Value>(connection).await
            })
            .await;
        if let Err(error) = removed {
            debug!(%error, "could not deregister the consumer");
        }
    }

    /// The next ready runs: claimed from dead consumers when that is due, else new ones.
    async fn next(&mut self) -> Result<Claimed, RedisFailure> {
        if Instant::now() >= self.claim_at {
            let runs = self.claim().await?;
            // Jitter spreads the claims of many consumers and persisters.
            let wait = CLAIM_INTERVAL.mul_f64(rand::rng().random_range(0.8..=1.0));
            self.claim_at = Instant::now() + wait;
            if !runs.is_empty() {
                info!(
                    runs = runs.len(),
                    "took over runs that no persister has finished"
                );
                return Ok(Claimed {
                    runs,
                    is_takeover: true,
                });
            }
        }
        let runs = self.read().await?;
        Ok(Claimed {
            runs,
            is_takeover: false,
        })
    }

    async fn read(&mut self) -> Result<Vec<ReadyRun>, RedisFailure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.make_groups().await?;
                self.redis.dedicated(self.slot).await?
            }
        };
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg(&["GROUP", PERSISTER_GROUP, &self.consumer])
            .arg("COUNT")
            .arg(MAX_READ_ENTRIES)
            .arg("BLOCK")
            .arg(READ_BLOCK.as_millis().to_string())
            .arg("STREAMS")
            .arg(&self.streams)
            .arg(vec![">"; self.streams.len()]);
        let deadline = READ_BLOCK + REPLY_GRACE;
        match timeout(deadline, command.query_async::<Value>(&mut connection)).await {
            Ok(Ok(reply)) => {
                self.connection = Some(connection);
                Ok(group_by_run(read_entries(reply)))
            }
            // A flush deleted the groups, also while the read waited; the next call makes them
            // again.
            Ok(Err(error)) if matches!(error.code(), Some("NOGROUP" | "UNBLOCKED")) => {
                Ok(Vec::new())
            }
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.timed_out(deadline)),
        }
    }

    async fn claim(&mut self) -> Result<Vec<ReadyRun>, RedisFailure> {
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline
                .cmd("XAUTOCLAIM")
                .arg(&[stream, PERSISTER_GROUP, &self.consumer])
                .arg(CLAIM_MIN_IDLE.as_millis().to_string())
                .arg(&["0", "COUNT"])
                .arg(MAX_READ_ENTRIES);
        }
        let replies = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Vec<Value>>(connection).await
            })
            .await;
        match replies {
            Ok(replies) => {
                let entries = replies.into_iter().flat_map(claimed_entries).collect();
                Ok(group_by_run(entries))
            }
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make_groups().await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn check_partitions(&self) -> Result<(), RedisFailure> {
        for partition in self.partitions.clone() {
            self.guard.check(partition).await?;
        }
        Ok(())
    }

    async fn make_groups(&self) -> Result<(), RedisFailure> {
        for stream in &self.streams {
            self.redis
                .run(self.slot, async |connection| {
                    make_group(stream, connection).await
                })
                .await?;
        }
        Ok(())
    }

    /// How many entries of this consumer are unacknowledged; one per partition is enough to know.
    async fn count_unacknowledged(&self) -> Result<usize, RedisFailure> {
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline
                .cmd("XREADGROUP")
                .arg(&["GROUP", PERSISTER_GROUP, &self.consumer])
                .arg(&["COUNT", "1", "STREAMS", stream, "0"]);
        }
        let replies = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Vec<Value>>(connection).await
            })
            .await?;
        Ok(replies.into_iter().flat_map(read_entries).count())
    }
}
