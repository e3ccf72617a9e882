//! The line of runs with unstored events: one `ready` stream per partition, read as a consumer group.
//!
//! An entry is a hint, no truth: lost, doubled or stale ones do no harm. Each persister is a consumer
//! of its own; what one has taken and not acknowledged for [`CLAIM_IDLE`] is taken over by any other,
//! which also looks at what it took itself when Redis did not hear it.
//!
//! A single server serves all partitions by one blocking read. A cluster allows a command no more than
//! one slot, so there each partition is a line of its own: what it costs to be idle is the same for any
//! number of runs.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt as _;
use redis::Value;
use redis::aio::MultiplexedConnection;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, PERSISTERS, Slot};
use runcast_common::redis;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

/// Entries taken at once from each partition.
const TAKE: usize = 8;

/// How long one blocking read waits; also how late a missed shutdown is noticed at worst.
const BLOCK: Duration = Duration::from_secs(1);

/// How long Redis may take beyond that before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(4);

/// Unacknowledged for this long, an entry's consumer counts as dead: many times what a cycle takes.
const CLAIM_IDLE: Duration = Duration::from_secs(5);

/// How often to look for such entries. With [`CLAIM_IDLE`] it bounds a takeover to 7 s.
const CLAIM_EVERY: Duration = Duration::from_secs(2);

/// A run that has unstored events, as far as the line knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyRun {
    /// The run.
    pub run: Uuid,
    /// Its entries in the line, to be acknowledged when it is settled.
    pub ready_ids: Vec<String>,
}

/// What came from the line.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The runs; none when there were none for a while.
    pub runs: Vec<ReadyRun>,
    /// True if nobody had finished them in time.
    pub claimed: bool,
}

/// This persister's place at the line of some partitions.
#[derive(Debug)]
pub struct ReadyConsumer {
    redis: Redis,
    slot: Slot,
    streams: Vec<String>,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    claim_at: Instant,
}

impl ReadyConsumer {
    /// A new consumer of all lines.
    #[must_use]
    pub fn all(redis: &Redis, keys: &Keys) -> Vec<Self> {
        let consumer = Uuid::now_v7().to_string();
        let lanes = redis.lanes().into_iter();
        lanes
            .map(|partitions| Self {
                redis: redis.clone(),
                slot: Keys::slot(partitions.start),
                streams: partitions.map(|partition| keys.ready(partition)).collect(),
                consumer: consumer.clone(),
                connection: None,
                claim_at: Instant::now(),
            })
            .collect()
    }

    /// Waits for ready runs. May be dropped while it waits: what was taken then is taken over like a dead
    /// consumer's.
    ///
    /// # Errors
    /// [`RedisFailure`] if Redis cannot be reached; the next call connects anew.
    pub async fn take(&mut self) -> Result<Claimed, RedisFailure> {
        if Instant::now() >= self.claim_at {
            let claimed = self.claim().await?;
            // Spread, so that many lines and many persisters do not come together.
            let wait = CLAIM_EVERY.mul_f64(rand::rng().random_range(0.8..=1.0));
            self.claim_at = Instant::now() + wait;
            if !claimed.is_empty() {
                info!(runs = claimed.len(), "took over runs that nobody finished");
                return Ok(Claimed {
                    runs: claimed,
                    claimed: true,
                });
            }
        }
        let runs = self.read().await?;
        Ok(Claimed {
            runs,
            claimed: false,
        })
    }

    /// Says good-bye: a consumer that has nothing pending leaves no trace.
    pub async fn leave(mut self) {
        self.connection = None;
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline.cmd("XREADGROUP").arg(&[
                "GROUP",
                PERSISTERS,
                &self.consumer,
                "COUNT",
                "1",
                "STREAMS",
                stream,
                "0",
            ]);
        }
        let pending = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Vec<Value>>(connection).await
            })
            .await
            .map(|replies| replies.into_iter().flat_map(entries).count());
        match pending {
            Ok(0) => {}
            Ok(pending) => return debug!(pending, "left with entries for others to take over"),
            Err(error) => return debug!(%error, "left without a word"),
        }
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline
                .cmd("XGROUP")
                .arg(&["DELCONSUMER", stream, PERSISTERS, &self.consumer]);
        }
        let left = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Value>(connection).await
            })
            .await;
        if let Err(error) = left {
            debug!(%error, "left without a word");
        }
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
            .arg(&["GROUP", PERSISTERS, &self.consumer])
            .arg("COUNT")
            .arg(TAKE)
            .arg("BLOCK")
            .arg(BLOCK.as_millis().to_string())
            .arg("STREAMS")
            .arg(&self.streams)
            .arg(vec![">"; self.streams.len()]);
        match timeout(BLOCK + GRACE, command.query_async::<Value>(&mut connection)).await {
            Ok(Ok(reply)) => {
                self.connection = Some(connection);
                Ok(group(entries(reply)))
            }
            // The groups went with a flush; the next call makes them again.
            Ok(Err(error)) if error.code() == Some("NOGROUP") => Ok(Vec::new()),
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.silent(BLOCK + GRACE)),
        }
    }

    async fn claim(&mut self) -> Result<Vec<ReadyRun>, RedisFailure> {
        let mut pipeline = redis::pipe();
        for stream in &self.streams {
            pipeline
                .cmd("XAUTOCLAIM")
                .arg(&[stream, PERSISTERS, &self.consumer])
                .arg(CLAIM_IDLE.as_millis().to_string())
                .arg(&["0", "COUNT"])
                .arg(TAKE);
        }
        let replies = self
            .redis
            .run(self.slot, async |connection| {
                pipeline.query_async::<Vec<Value>>(connection).await
            })
            .await;
        match replies {
            Ok(replies) => Ok(group(replies.into_iter().flat_map(claimed).collect())),
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make_groups().await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn make_groups(&self) -> Result<(), RedisFailure> {
        for stream in &self.streams {
            let mut command = redis::cmd("XGROUP");
            command.arg(&["CREATE", stream, PERSISTERS, "0", "MKSTREAM"]);
            match self.redis.query::<Value>(self.slot, &command).await {
                Ok(_) => {}
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The runs that the reply of `XRANGE` on a ready stream names.
pub(super) fn runs(entries: Value) -> Vec<Uuid> {
    items(entries).into_iter().map(|(_, run)| run).collect()
}

/// Entry id and run of every entry in the reply of `XREADGROUP`.
fn entries(reply: Value) -> Vec<(String, Uuid)> {
    let streams: Vec<Value> = match reply {
        Value::Map(pairs) => pairs.into_iter().map(|(_, entries)| entries).collect(),
        _ => Vec::new(),
    };
    streams.into_iter().flat_map(items).collect()
}

/// The same in the reply of `XAUTOCLAIM`: where to go on, entries, ids that are gone.
fn claimed(reply: Value) -> Vec<(String, Uuid)> {
    match reply {
        Value::Array(parts) => parts.into_iter().nth(1).map(items).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn items(entries: Value) -> Vec<(String, Uuid)> {
    let Value::Array(entries) = entries else {
        return Vec::new();
    };
    let item = |entry: Value| {
        let (id, fields): (String, Option<Vec<String>>) = redis::from_redis_value(entry).ok()?;
        match fields.as_deref() {
            Some([name, run, ..]) if name == "run" => match Uuid::try_parse(run) {
                Ok(run) => Some((id, run)),
                Err(_not_a_run) => {
                    warn!(%id, "an entry of the ready line names no run");
                    None
                }
            },
            _ => None,
        }
    };
    entries.into_iter().filter_map(item).collect()
}

/// One item per run, in the order of first mention.
fn group(entries: Vec<(String, Uuid)>) -> Vec<ReadyRun> {
    let mut runs: Vec<ReadyRun> = Vec::new();
    let mut at: HashMap<Uuid, usize> = HashMap::new();
    for (id, run) in entries {
        let index = *at.entry(run).or_insert_with(|| {
            runs.push(ReadyRun {
                run,
                ready_ids: Vec::new(),
            });
            runs.len() - 1
        });
        runs[index].ready_ids.push(id);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_grouped_by_run() {
        let run = Uuid::now_v7();
        let entry = |id: &str| {
            Value::Array(vec![
                bulk(id),
                Value::Array(vec![bulk("run"), bulk(&run.to_string())]),
            ])
        };
        let gone = Value::Array(vec![bulk("3-0"), Value::Nil]);
        let list = Value::Array(vec![entry("1-0"), gone, entry("2-0")]);
        let read = Value::Map(vec![(bulk("stream"), list.clone())]);
        let expected = vec![ReadyRun {
            run,
            ready_ids: vec!["1-0".into(), "2-0".into()],
        }];
        assert_eq!(group(entries(read)), expected);
        let auto = Value::Array(vec![bulk("0-0"), list, Value::Array(vec![])]);
        assert_eq!(group(claimed(auto)), expected);
        assert_eq!(group(entries(Value::Nil)), vec![]);
    }
}
