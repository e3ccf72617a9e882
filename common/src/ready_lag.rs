//! The state of the ready queue, for health checks: whether persisters can read it, how many runs
//! wait, and how long the first of them has waited.
//!
//! One call for all partitions; in a cluster one for each, at the same time. A partition whose key
//! is of another type counts as empty: persisters remove such a key, and the others go on.

use std::time::Duration;

use crate::connect::{Redis, RedisFailure};
use crate::protocol::event;
use crate::protocol::keys::{Keys, PERSISTER_GROUP};
use crate::redis;
use futures::future::try_join_all;
use redis::{RedisError, Value};

/// How many runs wait in the ready queue, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadyLag {
    /// Entries: runs with unstored events, some perhaps twice.
    pub entries: u64,
    /// How long the oldest has waited, by the clocks of Redis and of this process.
    pub oldest: Duration,
}

/// Reads the state of the ready queue of all partitions. The failure has the code `NOGROUP` while
/// no persister has created the consumer group.
pub async fn read(redis: &Redis, keys: &Keys) -> Result<ReadyLag, RedisFailure> {
    let reads = redis
        .partition_groups()
        .into_iter()
        .map(|partitions| async move {
            let mut pipeline = redis::pipe();
            let slot = Keys::slot(partitions.start);
            for partition in partitions {
                let ready = keys.ready(partition);
                pipeline.cmd("XLEN").arg(&ready);
                pipeline
                    .cmd("XRANGE")
                    .arg(&ready)
                    .arg(&["-", "+", "COUNT", "1"]);
                // Fails without the group, and with it the whole read.
                pipeline.cmd("XPENDING").arg(&ready).arg(PERSISTER_GROUP);
            }
            let pipeline = pipeline.ignore_errors();
            redis
                .run(slot, async |connection| {
                    let replies: Vec<Value> = pipeline.query_async(connection).await?;
                    replies.into_iter().map(unless_wrong_type).collect()
                })
                .await
        });
    let now = event::now_ms();
    let mut lag = ReadyLag::default();
    for replies in try_join_all(reads).await? {
        let replies: Vec<Value> = replies;
        for part in replies.chunks(3) {
            let [length, first, _pending] = part else {
                continue;
            };
            lag.entries += number(length);
            if let Some(since) = first_entry_ms(first) {
                let age = Duration::from_millis(now.saturating_sub(since));
                lag.oldest = lag.oldest.max(age);
            }
        }
    }
    Ok(lag)
}

/// A reply, an empty one for a key of another type, or any other error.
fn unless_wrong_type(reply: Value) -> Result<Value, RedisError> {
    match reply.extract_error() {
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Value::Nil),
        reply => reply,
    }
}

fn number(reply: &Value) -> u64 {
    match reply {
        Value::Int(number) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

/// When the only entry of the reply was added: its id begins with the time.
fn first_entry_ms(reply: &Value) -> Option<u64> {
    let Value::Array(entries) = reply else {
        return None;
    };
    let Value::Array(entry) = entries.first()? else {
        return None;
    };
    let Value::BulkString(id) = entry.first()? else {
        return None;
    };
    let (ms, _) = std::str::from_utf8(id).ok()?.split_once('-')?;
    ms.parse().ok()
}
