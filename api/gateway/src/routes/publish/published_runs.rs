//! What a gateway remembers of the runs that are published to through it: that they exist, and how
//! many bytes are not counted yet.
//!
//! Postgres is asked once for a run. While Postgres is down, a run that Redis knows is accepted, so
//! that agents go on publishing. Bytes are counted as they travel, in units of
//! [`MIN_COUNTED_BYTES`], so that small batches do not cost a call of the rate limit each; a
//! request counts as [`MIN_REQUEST_BYTES`] at least, so that empty ones are limited as well.
//!
//! Bounds: [`MAX_REMEMBERED_RUNS`]. Time: a request that publishes too fast waits up to
//! [`MAX_WAIT`], and is refused otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_access::rate_limit::policy::Policy;
use runcast_access::rate_limit::subject::RateKey;
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_EVENT_BYTES};
use runcast_common::scripts::is_known;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::Gateway;
use crate::extract::path::path_id;
use crate::problem::Problem;
use crate::routes::run_access::{check_run_access, no_run};

/// Runs that are remembered, some dozen bytes each.
const MAX_REMEMBERED_RUNS: usize = 100_000;

/// Bytes that are counted together.
const MIN_COUNTED_BYTES: u64 = 64 * 1024;

/// The least that a request counts.
const MIN_REQUEST_BYTES: u64 = 1024;

/// The most that is asked for at once: no burst that can be configured is smaller.
const MAX_COUNTED_BYTES: u64 = (MAX_ENTRY_BYTES + MAX_EVENT_BYTES) as u64;

/// Longest wait of a request. Agents expect an answer within five seconds.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The runs that are published to through this gateway.
#[derive(Debug)]
pub(super) struct PublishedRuns(Cache<Uuid, Arc<AtomicU64>>);

/// A run that exists, and that the principal may publish to.
#[derive(Debug)]
pub(super) struct PublishedRun {
    pub(super) id: Uuid,
    uncounted_bytes: Arc<AtomicU64>,
}

impl Default for PublishedRuns {
    fn default() -> Self {
        Self(Cache::new(MAX_REMEMBERED_RUNS))
    }
}

impl PublishedRuns {
    /// The run with the id in a path. 403 without the right to publish to it, 404 if it does not
    /// exist, 410 if it was deleted.
    pub(super) async fn authorize(
        &self,
        gateway: &Gateway,
        principal: &Principal,
        id: &str,
    ) -> Result<PublishedRun, Problem> {
        let run = path_id("run", id)?;
        check_run_access(gateway, principal, Scope::Publish, run).await?;
        if let Some(uncounted_bytes) = self.0.get(&run) {
            return Ok(PublishedRun {
                id: run,
                uncounted_bytes,
            });
        }
        let uncounted_bytes = Arc::default();
        match gateway.store().coverage(run).await {
            Ok(Some(_)) => self.0.insert(run, Arc::clone(&uncounted_bytes)),
            Ok(None) => return Err(no_run(gateway, run).await),
            Err(error) if error.is_outage() && is_in_redis(gateway, run).await? => {}
            Err(error) => return Err(error.into()),
        }
        Ok(PublishedRun {
            id: run,
            uncounted_bytes,
        })
    }
}

async fn is_in_redis(gateway: &Gateway, run: Uuid) -> Result<bool, Problem> {
    let keys = gateway.keys().run(run);
    let command = is_known(&keys);
    Ok(gateway.redis().query(keys.slot, &command).await?)
}

impl PublishedRun {
    /// Waits until so many bytes more may be published to the run; 429 if that takes too long.
    pub(super) async fn wait_for_quota(
        &self,
        gateway: &Gateway,
        principal: &Principal,
        bytes: usize,
    ) -> Result<(), Problem> {
        if principal.holds(Scope::Admin) {
            return Ok(());
        }
        let bytes = (bytes as u64).max(MIN_REQUEST_BYTES);
        let uncounted = self.uncounted_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if uncounted < MIN_COUNTED_BYTES {
            return Ok(());
        }
        let mut left = self.uncounted_bytes.swap(0, Ordering::Relaxed);
        let deadline = Instant::now() + MAX_WAIT;
        while left > 0 {
            let cost = left.min(MAX_COUNTED_BYTES);
            let decision = gateway
                .limits()
                .ask(RateKey::Run(self.id), &[Policy::Publish], cost);
            match decision.await.denial() {
                None => left -= cost,
                // What is refused is not appended, so it does not count.
                Some(denial) if Instant::now() + denial.retry_after > deadline => {
                    let others = left.saturating_sub(bytes);
                    self.uncounted_bytes.fetch_add(others, Ordering::Relaxed);
                    return Err(denial.into());
                }
                Some(denial) => sleep(denial.retry_after).await,
            }
        }
        Ok(())
    }

    /// Counts a request that is not about bytes, such as a heartbeat; 429 if there are too many.
    pub(super) async fn count_request(
        &self,
        gateway: &Gateway,
        principal: &Principal,
    ) -> Result<(), Problem> {
        if principal.holds(Scope::Admin) {
            return Ok(());
        }
        let decision = gateway
            .limits()
            .ask(RateKey::Run(self.id), &[Policy::Ingest], 1);
        match decision.await.denial() {
            None => Ok(()),
            Some(denial) => Err(denial.into()),
        }
    }
}
