//! What has to be done now and then, in the background: the worker.
//!
//! Each task may run in any number of workers at once: what it does is idempotent, and Postgres
//! orders those that meet.

use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::store::{Store, StoreError};

/// How often the house is put in order. Partitions are made a week ahead, so a day of failures harms
/// nobody.
const EVERY: Duration = Duration::from_secs(3600);

/// Does its rounds until told to stop.
#[derive(Debug)]
pub struct Worker {
    store: Store,
}

impl Worker {
    /// A worker on this Postgres.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes a round at once, and then every hour; after a failure sooner.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let wait = match stop.run_until_cancelled(self.round()).await {
                None => return,
                Some(Ok(())) => {
                    backoff.reset();
                    EVERY.mul_f64(rand::rng().random_range(0.9..1.1))
                }
                Some(Err(error)) => {
                    let wait = backoff.next_wait();
                    warn!(%error, ?wait, "a round of the worker failed");
                    wait
                }
            };
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn round(&self) -> Result<(), StoreError> {
        let made = self.store.make_partitions().await?;
        if made > 0 {
            info!(made, "made partitions for the events of the days ahead");
        }
        let forgotten = self.store.forget_expired_sessions().await?;
        if forgotten > 0 {
            info!(forgotten, "forgot expired sessions");
        }
        Ok(())
    }
}
