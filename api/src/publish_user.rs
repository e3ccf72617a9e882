//! Checks that agents can publish to Redis directly: creates a user as a gateway does, signs in as
//! it by `RUNCAST_PUBLISH_REDIS_URL`, and removes it again. It must be able to append, and must not
//! be able to read, delete, administer, or touch what is not of its run.
//!
//! It is the user of a run that does not exist, so nothing else is changed. Time: the usual Redis
//! deadline for each call.

use anyhow::{Context as _, anyhow, bail};
use runcast_access::run_user::RunUserCredentials;
use runcast_access::secret::{Secret, TOKEN_PREFIX};
use runcast_common::config::RedisUrl;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::redis::{self, Cmd};
use runcast_common::run_users::RunUsers;
use runcast_common::scripts::{Append, AppendAs};
use uuid::Uuid;

/// Fails if the services cannot create a user, or if it cannot publish, or can do more than that.
pub async fn check(url: &RedisUrl, services: &Redis, keys: &Keys) -> anyhow::Result<()> {
    let run = Uuid::now_v7();
    let created = RunUserCredentials::of(&Secret::generate(TOKEN_PREFIX)?, run)?;
    let users = RunUsers::new(services.clone(), keys.clone());
    let (user, password) = (created.user, created.password);
    users
        .create(&user, &password.hash())
        .await
        .map_err(unmanaged)?;
    let url = url.with_user(&users.name(&user), password.expose());
    let checked = check_rights(&url, keys, run).await;
    users.listed().await.map_err(unmanaged)?;
    users.forget(&[user]).await.map_err(unmanaged)?;
    checked
}

/// What an operator has to know if the services cannot manage users.
fn unmanaged(failure: RedisFailure) -> anyhow::Error {
    if failure.is_outage() {
        return failure.into();
    }
    anyhow!(
        "agents get no address of Redis and publish through the gateway, since the user of REDIS_URL \
         may not manage users: give it `+acl|setuser +acl|deluser +acl|users`, or unset \
         RUNCAST_PUBLISH_REDIS_URL ({failure})"
    )
}

async fn check_rights(url: &RedisUrl, keys: &Keys, run: Uuid) -> anyhow::Result<()> {
    let redis = Redis::new(url)?;
    let run_keys = keys.run(run);
    query_state(&redis, &run_keys)
        .await
        .context("the user of a run cannot call the append script")?;
    for (command, what) in forbidden(keys, &run_keys) {
        match redis.query::<redis::Value>(run_keys.slot, &command).await {
            Err(failure) if failure.code() == Some("NOPERM") => {}
            Err(failure) if failure.is_outage() => return Err(failure.into()),
            Ok(_) | Err(_) => {
                bail!("the user of a run may {what}: this Redis does not keep to its rules")
            }
        }
    }
    Ok(())
}

/// Calls the append script without an event, which changes nothing.
async fn query_state(redis: &Redis, keys: &RunKeys) -> Result<(), RedisFailure> {
    let query = Append::probe();
    let query = &query;
    let queried = redis.run(keys.slot, async |connection| {
        query.call(keys, AppendAs::RunUser, connection).await
    });
    queried.await.map(drop)
}

/// What the user must not be able to do, in words that follow "may".
fn forbidden(keys: &Keys, own: &RunKeys) -> [(Cmd, &'static str); 7] {
    let command = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    let same_slot = {
        let mut bytes = *Uuid::now_v7().as_bytes();
        bytes[15] = own.run.as_bytes()[15];
        keys.run(Uuid::from_bytes(bytes))
    };
    [
        (
            command(&["XRANGE", &own.stream, "-", "+", "COUNT", "1"]),
            "read what runs print",
        ),
        (command(&["DEL", &own.stream]), "delete runs"),
        (
            command(&["EVAL", "return 1", "1", &own.meta]),
            "run scripts of its own",
        ),
        (
            command(&["SCRIPT", "LOAD", "return 1"]),
            "load scripts of its own",
        ),
        (
            command(&["HSET", &same_slot.meta, "seq", "1"]),
            "write to other runs",
        ),
        (
            command(&["XADD", &own.ready, "*", "run", "x"]),
            "write to the ready queue",
        ),
        (command(&["CONFIG", "GET", "maxmemory"]), "administer Redis"),
    ]
}
