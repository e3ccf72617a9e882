//! Calls scripts by their SHA-1.

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, Value};

use crate::protocol::keys::RunKeys;

/// Sends one `EVALSHA`, and repeats it after loading the script if the server did not know it. That
/// is safe: a `NOSCRIPT` reply means that nothing was executed.
pub(crate) async fn call<C: ConnectionLike>(
    script: &redis::Script,
    command: &Cmd,
    connection: &mut C,
) -> Result<Value, RedisError> {
    match command.query_async(connection).await {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            script.load_async(connection).await?;
            command.query_async(connection).await
        }
        result => result,
    }
}

/// Starts the command for a script whose keys are stream, meta, bell, ready and `extra_keys`, and
/// whose first argument is the run.
pub(super) fn evalsha(script: &redis::Script, keys: &RunKeys, extra_keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command
        .arg(script.get_hash())
        .arg(4 + extra_keys.len())
        .arg(&keys.stream)
        .arg(&keys.meta)
        .arg(&keys.wakeups)
        .arg(&keys.ready)
        .arg(extra_keys)
        .arg(keys.run.to_string());
    command
}

/// The error for a reply that does not have the expected shape.
pub(crate) fn unexpected_reply(script: &'static str) -> RedisError {
    RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        "the reply of a script has an unexpected shape",
        script.to_owned(),
    ))
}
