//! Checks the user of `RUNCAST_PUBLISH_REDIS_URL` by signing in as it: it must be able to append,
//! and must not be able to read, delete or administer.
//!
//! It uses the keys of a run that does not exist, so nothing is changed. Time: the usual Redis
//! deadline for each call.

use anyhow::{Context as _, bail};
use runcast_common::config::RedisUrl;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::redis::{self, Cmd};
use runcast_common::scripts::{Append, Cap};
use uuid::Uuid;

/// Fails if the user cannot publish, or can do more than that.
pub async fn check(url: &RedisUrl, keys: &Keys) -> anyhow::Result<()> {
    let redis = Redis::new(url)?;
    let keys = keys.run(Uuid::now_v7());
    query_state(&redis, &keys)
        .await
        .context("its user cannot call the append script")?;
    for (command, what) in forbidden(&keys) {
        match redis.query::<redis::Value>(keys.slot, &command).await {
            Err(failure) if failure.code() == Some("NOPERM") => {}
            Err(failure) if failure.is_outage() => return Err(failure.into()),
            Ok(_) | Err(_) => bail!(
                "its user may {what}, and all agents get it: give it the rules that `runcastd acl` \
                 prints"
            ),
        }
    }
    Ok(())
}

/// Calls the append script without an event, which changes nothing.
async fn query_state(redis: &Redis, keys: &RunKeys) -> Result<(), RedisFailure> {
    let query = Append {
        producer: Uuid::nil(),
        producer_epoch: 0,
        base: 0,
        acked: 0,
        first: 1,
        count: 0,
        body: Body::Plain(b""),
        cap: Cap::default(),
    };
    let query = &query;
    let queried = redis.run(keys.slot, async |connection| {
        query.call(keys, connection).await
    });
    queried.await.map(drop)
}

/// What the user must not be able to do, in words that follow "may".
fn forbidden(keys: &RunKeys) -> [(Cmd, &'static str); 4] {
    let command = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    [
        (
            command(&["XRANGE", &keys.stream, "-", "+", "COUNT", "1"]),
            "read what runs print",
        ),
        (command(&["DEL", &keys.stream]), "delete runs"),
        (
            command(&["EVAL", "return 1", "1", &keys.meta]),
            "run scripts of its own",
        ),
        (command(&["CONFIG", "GET", "maxmemory"]), "administer Redis"),
    ]
}
