//! `runcastd check`: shows the settings that apply, then checks the servers and services that they
//! name, one line each. The first that does not fit ends it with an error.

use std::time::Duration;

use anyhow::{Context as _, bail};
use runcast_access::oidc::Oidc;
use runcast_common::config::Env;
use runcast_common::connect::Redis;
use runcast_gateway::readiness::Health;
use runcast_store::Store;

use super::output::{open, print, print_line};
use crate::preflight;
use crate::publish_user;
use crate::settings::{Settings, effective};

/// Checks everything that a service needs.
pub async fn run(env: &impl Env) -> anyhow::Result<()> {
    let settings = Settings::from_env(env)?;
    print(effective::report(env).as_bytes())?;
    print_line("")?;
    settings.refuse_plaintext(true)?;

    // The two servers, and what they hold.
    let redis = Redis::new(&settings.redis).context("REDIS_URL")?;
    let servers = preflight::redis(&redis, settings.environment).await?;
    print_line(&format!("ok  REDIS_URL     {} ({servers})", settings.redis))?;
    if let Some(publish) = &settings.publish_redis {
        let checked = publish_user::check(publish, &redis, &settings.keys).await;
        checked.context("RUNCAST_PUBLISH_REDIS_URL")?;
        print_line(&format!(
            "ok  RUNCAST_PUBLISH_REDIS_URL  {publish} (agents get a user for each run)"
        ))?;
    }
    let store = open(&settings.postgres).await?;
    print_line(&format!("ok  DATABASE_URL  {}", settings.postgres))?;
    let health = Health::new(redis, store.clone(), settings.keys.clone());
    let results = health.look().await;
    print_line(&format!(
        "ok  schema        version {}",
        results.schema_version
    ))?;
    if !results.partitions.is_ok() {
        bail!("partitions: {}", results.partitions.text());
    }
    print_line("ok  partitions for the events of today and tomorrow")?;

    // What only some installations have.
    check_oidc(&settings, &store).await?;
    check_archive(&settings, &store).await?;

    let ready = results.ready_queue;
    if !ready.group.is_ok() {
        // Normal before the first start of a persister.
        return print_line(&format!("--  ready queue: {}", ready.group.text()));
    }
    let lag = Duration::from_millis(ready.lag_ms);
    let waiting = match ready.waiting {
        0 => "no run waits to be stored".to_owned(),
        waiting => format!("{waiting} runs wait to be stored, the first for {lag:?}"),
    };
    print_line(&format!("ok  ready queue: {waiting}"))
}

async fn check_oidc(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let Some(oidc) = settings.oidc.clone() else {
        return Ok(());
    };
    oidc.check_role(store).await?;
    let issuer = oidc.issuer.to_string();
    let public_url = settings.public_url.clone();
    let public_url = public_url.context("RUNCAST_PUBLIC_URL is not set")?;
    let provider = Oidc::new(oidc, public_url).context("RUNCAST_OIDC_ISSUER")?;
    let answer = provider.ping().await.map_err(anyhow::Error::msg);
    answer.context("RUNCAST_OIDC_ISSUER")?;
    print_line(&format!("ok  RUNCAST_OIDC_ISSUER  {issuer}"))
}

async fn check_archive(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    match &settings.archive {
        Some(archive) => {
            archive.ping().await.context("RUNCAST_ARCHIVE")?;
            print_line(&format!("ok  RUNCAST_ARCHIVE  {archive}"))
        }
        None if store.has_archives().await? => bail!(
            "there are archived runs, and RUNCAST_ARCHIVE is not set: give the place where they lie"
        ),
        None => Ok(()),
    }
}
