//! `runcastd recover`: creates runs again that Postgres does not know, as after a restore, so that
//! what Redis still holds of them is stored, and agents can resend the rest.

use std::io::Write;

use anyhow::Context as _;
use clap::Args;
use runcast_common::config::{Env, redis_url};
use runcast_common::connect::Redis;
use runcast_common::scripts::{EnqueueReason, enqueue};
use runcast_store::Store;
use uuid::Uuid;

use crate::settings::key_prefix;

/// Which runs.
#[derive(Debug, Args)]
pub struct Recover {
    /// Ids of runs, as `runcast resend` or the log of a persister names them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<Uuid>,
}

impl Recover {
    /// Creates the runs, and queues what Redis holds of them.
    pub async fn run(
        self,
        env: &impl Env,
        store: &Store,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let created = store.recreate_runs(&self.runs).await?;
        let redis = redis_url(env, "REDIS_URL")?.map(|url| Redis::new(&url));
        let redis = redis.transpose().context("REDIS_URL")?;
        let keys = key_prefix(env)?;
        for run in self.runs {
            if !created.contains(&run) {
                writeln!(out, "{run} exists, or was deleted: left as it is")?;
                continue;
            }
            writeln!(out, "{run} is created again")?;
            let Some(redis) = &redis else { continue };
            let keys = keys.run(run);
            let queued = redis.run(keys.slot, async |connection| {
                enqueue(&keys, EnqueueReason::Behind, connection).await
            });
            queued
                .await
                .context("cannot queue what Redis holds of it")?;
        }
        Ok(())
    }
}
