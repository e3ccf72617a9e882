//! Calls of `make_group.lua`: a persister makes the consumer group of a ready stream.

use std::sync::LazyLock;

use redis::RedisError;
use redis::aio::ConnectionLike;

use super::evalsha::call;
use crate::protocol::keys::PERSISTER_GROUP;

static MAKE_GROUP_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("make_group.lua")));

/// Makes the group of the persisters, unless it exists. Safe to repeat.
pub async fn make_group<C: ConnectionLike>(
    ready: &str,
    connection: &mut C,
) -> Result<(), RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(MAKE_GROUP_SCRIPT.get_hash()).arg(1).arg(ready);
    command.arg(PERSISTER_GROUP);
    call(&MAKE_GROUP_SCRIPT, &command, connection).await?;
    Ok(())
}
