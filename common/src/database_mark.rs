//! The mark of the database that services have seen last, as Redis holds it.
//!
//! A worker changes the mark in Postgres every few seconds and copies it here. If Postgres then has
//! another mark than the copy, Postgres was restored to an older state: to a backup, or to a
//! replica that lagged behind.

use std::sync::LazyLock;

use redis::Value;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure};
use crate::protocol::keys::{Keys, Slot};
use crate::scripts::call;

static SET_MARK_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/set_mark.lua")));

/// A state of the database that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenMark {
    /// The mark.
    pub mark: Uuid,
    /// When it was written, by the clock of Postgres, in ms.
    pub marked_ms: i64,
}

/// The mark that was seen last; none if Redis holds none that can be read.
pub async fn seen(redis: &Redis, keys: &Keys) -> Result<Option<SeenMark>, RedisFailure> {
    let key = keys.database_mark();
    let slot = Slot::of(&key);
    let value: Option<String> = redis.query(slot, redis::cmd("GET").arg(&key)).await?;
    Ok(value.as_deref().and_then(parse))
}

/// Replaces the mark that was seen last.
pub async fn set_seen(redis: &Redis, keys: &Keys, seen: SeenMark) -> Result<(), RedisFailure> {
    let key = keys.database_mark();
    let mut command = redis::cmd("EVALSHA");
    command.arg(SET_MARK_SCRIPT.get_hash()).arg(1).arg(&key);
    command.arg(format!("{} {}", seen.mark, seen.marked_ms));
    let slot = Slot::of(&key);
    let set = redis.run(slot, async |connection| {
        call(&SET_MARK_SCRIPT, &command, connection).await
    });
    set.await.map(|_: Value| ())
}

fn parse(value: &str) -> Option<SeenMark> {
    let (mark, marked_ms) = value.split_once(' ')?;
    Some(SeenMark {
        mark: mark.parse().ok()?,
        marked_ms: marked_ms.parse().ok()?,
    })
}
