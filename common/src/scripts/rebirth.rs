//! Calls of `rebirth.lua`: a persister moves a run to a new epoch after Redis has lost writes.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::evalsha::{call, evalsha, unexpected_reply};
use crate::protocol::event_id::EventId;
use crate::protocol::keys::RunKeys;

static REBIRTH_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("rebirth.lua")));

/// Gives the unstored events that Redis holds of a run new ids above `watermark`. Returns the last
/// id of the run.
pub async fn rebirth<C: ConnectionLike>(
    keys: &RunKeys,
    watermark: EventId,
    durable: &[(Uuid, u64)],
    connection: &mut C,
) -> Result<EventId, RedisError> {
    let mut command = evalsha(&REBIRTH_SCRIPT, keys, &[]);
    command.arg(watermark.epoch).arg(watermark.seq);
    for (producer, seq) in durable {
        command.arg(producer.to_string()).arg(seq);
    }
    match call(&REBIRTH_SCRIPT, &command, connection).await? {
        Value::BulkString(id) => {
            EventId::parse_bytes(&id).map_err(|_malformed| unexpected_reply("rebirth"))
        }
        _ => Err(unexpected_reply("rebirth")),
    }
}
