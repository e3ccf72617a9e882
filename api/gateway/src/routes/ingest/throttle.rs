//! How fast bytes may be published to one run over HTTP.
//!
//! Bytes are counted in pieces of [`PIECE`], so that a trickle of small batches costs no call for each; what a request
//! leaves below that is not counted, and bounded by how many requests one may send. Whoever publishes too fast is
//! slowed down, which a streamed body feels as back-pressure, and refused if that would take longer than
//! [`PATIENCE`]. What Redis is given directly is bounded by what a run may hold there.

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
const PIECE: u64 = 64 * 1024;

/// How long a batch waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of a request is not counted yet.
#[derive(Debug)]
pub(super) struct Throttle {
    run: Uuid,
    uncounted: u64,
    is_limited: bool,
}

impl Throttle {
    /// That of a request to this run.
    pub(super) fn of(principal: &Principal, run: Uuid) -> Self {
        Self {
            run,
            uncounted: 0,
            is_limited: !principal.holds(Scope::Admin),
        }
    }

    /// Returns when so many bytes more may be published.
    ///
    /// # Errors
    /// 429 if that is not soon.
    pub(super) async fn bytes(&mut self, gateway: &Gateway, bytes: usize) -> Result<(), Problem> {
        self.uncounted += bytes as u64;
        if self.uncounted < PIECE || !self.is_limited {
            return Ok(());
        }
        let patience = Instant::now() + PATIENCE;
        let (subject, policies) = (RateKey::Run(self.run), [Policy::Publish]);
        loop {
            let asked = gateway.limits().ask(subject, &policies, self.uncounted);
            let Some(refusal) = asked.await.refusal() else {
                self.uncounted = 0;
                return Ok(());
            };
            if Instant::now() + refusal.retry_after > patience {
                return Err(refusal.into());
            }
            sleep(refusal.retry_after).await;
        }
    }
}
