//! Limits how fast bytes are published to one run over HTTP.
//!
//! Bytes are counted in units of [`MIN_COUNTED_BYTES`], so that a trickle of small batches does not
//! cost a call each. What is left below that at the end of a request is not counted, and bounded by
//! the limit of requests. A client that publishes too fast has to wait, which a streamed body feels
//! as back-pressure, and is refused if it would wait longer than [`MAX_WAIT`]. What agents append
//! to Redis directly is bounded by the cap of the run there.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::Gateway;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_access::rate_limit::policy::Policy;
use runcast_access::rate_limit::subject::RateKey;

/// Bytes that are counted together.
const MIN_COUNTED_BYTES: u64 = 64 * 1024;

/// Longest wait of a batch.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The bytes of a request that are not counted yet.
#[derive(Debug)]
pub(super) struct Throttle {
    run: Uuid,
    uncounted_bytes: u64,
    is_limited: bool,
}

impl Throttle {
    pub(super) fn of(principal: &Principal, run: Uuid) -> Self {
        Self {
            run,
            uncounted_bytes: 0,
            is_limited: !principal.holds(Scope::Admin),
        }
    }

    /// Waits until so many bytes more may be published; 429 if that takes too long.
    pub(super) async fn wait_for_quota(
        &mut self,
        gateway: &Gateway,
        bytes: usize,
    ) -> Result<(), Problem> {
        self.uncounted_bytes += bytes as u64;
        if self.uncounted_bytes < MIN_COUNTED_BYTES || !self.is_limited {
            return Ok(());
        }
        let deadline = Instant::now() + MAX_WAIT;
        let (subject, policies) = (RateKey::Run(self.run), [Policy::Publish]);
        loop {
            let decision = gateway
                .limits()
                .ask(subject, &policies, self.uncounted_bytes);
            let Some(denial) = decision.await.denial() else {
                self.uncounted_bytes = 0;
                return Ok(());
            };
            if Instant::now() + denial.retry_after > deadline {
                return Err(denial.into());
            }
            sleep(denial.retry_after).await;
        }
    }
}
