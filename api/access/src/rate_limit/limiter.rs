//! [`RateLimiter`]: counts requests against quotas, and decides which to refuse.
//!
//! It counts in Redis for all gateways, by one script. While Redis does not answer, it counts in
//! this process ([`local`](super::local)). The gateway checks before it handles a request, and
//! sends what is left in the headers of its answer.
//!
//! Time: a request waits for Redis for [`REDIS_CHECK_DEADLINE`] at most, and only the first ones
//! do: after that, requests are counted here until [`RateLimiter::run`] has seen Redis answer
//! again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::rate_limit::{self, Quota, QuotaCheck, QuotaStatus};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::concurrency::ConcurrencyLimiter;
use super::failed_attempts::FailedAttempts;
use super::local::LocalLimiter;
use super::metrics::RateLimitMetrics;
use super::policy::{LimitConfig, Policy};
use super::subject::RateKey;

/// Longest wait of a request for Redis: a hundred times the usual time, and not yet a stall to a
/// user.
const REDIS_CHECK_DEADLINE: Duration = Duration::from_millis(500);

/// First wait between two probes of a Redis that does not answer.
const MIN_PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait between two probes of a Redis that does not answer.
const MAX_PROBE_PAUSE: Duration = Duration::from_secs(2);

/// Where requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In Redis, for all gateways.
    Redis,
    /// In this process, for itself.
    Process,
}

impl Source {
    /// Its name in metrics and in `/readyz`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Process => "process",
        }
    }
}

/// What the policies decided about a request.
#[derive(Debug, Clone)]
pub struct Decision {
    source: Source,
    statuses: Vec<(Policy, Quota, QuotaStatus)>,
}

/// The limits of one gateway.
#[derive(Debug)]
pub struct RateLimiter {
    config: LimitConfig,
    redis: Redis,
    keys: Keys,
    local: LocalLimiter,
    /// The checks that Redis did not answer, while it does not: they are repeated as a probe.
    unanswered: Mutex<Option<(Slot, Vec<QuotaCheck>)>>,
    source: watch::Sender<Source>,
    metrics: RateLimitMetrics,
    failed_attempts: FailedAttempts,
    open_streams: Arc<ConcurrencyLimiter>,
}

impl RateLimiter {
    /// Limits by this configuration. [`RateLimiter::run`] must run, so that Redis counts again
    /// after an outage.
    pub fn new(
        config: LimitConfig,
        redis: Redis,
        keys: Keys,
        metrics: RateLimitMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            local: LocalLimiter::new(&config),
            config,
            redis,
            keys,
            unanswered: Mutex::default(),
            source: watch::Sender::new(Source::Redis),
            failed_attempts: FailedAttempts::default(),
            open_streams: ConcurrencyLimiter::new(metrics.clone()),
            metrics,
        })
    }

    /// Where requests are counted at the moment.
    pub fn source(&self) -> Source {
        *self.source.borrow()
    }

    /// The limits.
    pub const fn rules(&self) -> &LimitConfig {
        &self.config
    }

    /// Takes `cost` from the quotas of `key` by each policy that is on, or nothing if one refuses.
    pub async fn ask(&self, key: RateKey, policies: &[Policy], cost: u64) -> Decision {
        // Find the policies that are on.
        let active = policies.iter().filter_map(|policy| {
            let quota = self.config.quota(*policy)?;
            Some((*policy, quota))
        });
        let active: Vec<(Policy, Quota)> = active.collect();
        if active.is_empty() {
            return Decision {
                source: self.source(),
                statuses: Vec::new(),
            };
        }
        // Count in Redis, or here.
        let from_redis = match self.source() {
            Source::Redis => self.check_in_redis(&key.to_string(), &active, cost).await,
            Source::Process => None,
        };
        let decision = match from_redis {
            Some(statuses) => {
                let each = active.into_iter().zip(statuses);
                let each = each.map(|((policy, quota), status)| (policy, quota, status));
                Decision::new(Source::Redis, each.collect())
            }
            None => Decision::new(Source::Process, self.check_locally(key, active, cost)),
        };
        self.metrics.decided(decision.source);
        if let Some(denial) = decision.denial() {
            self.metrics.limited(denial.policy, decision.source);
        }
        decision
    }

    fn check_locally(
        &self,
        key: RateKey,
        policies: Vec<(Policy, Quota)>,
        cost: u64,
    ) -> Vec<(Policy, Quota, QuotaStatus)> {
        let mut statuses = Vec::new();
        for (policy, quota) in policies {
            let Some(status) = self.local.check(key, policy, cost) else {
                continue;
            };
            statuses.push((policy, quota, status));
            if !status.allowed {
                break;
            }
        }
        statuses
    }

    async fn check_in_redis(
        &self,
        subject: &str,
        policies: &[(Policy, Quota)],
        cost: u64,
    ) -> Option<Vec<QuotaStatus>> {
        let check = |(policy, quota): &(Policy, Quota)| QuotaCheck {
            key: self.keys.rate(subject, policy.name()),
            quota: *quota,
            cost,
        };
        let checks: Vec<QuotaCheck> = policies.iter().map(check).collect();
        let slot = Slot::of(&checks.first()?.key);
        match timeout(REDIS_CHECK_DEADLINE, self.run_checks(slot, &checks)).await {
            Ok(Ok(statuses)) => Some(statuses),
            Ok(Err(error)) => {
                self.switch_to_process(slot, checks, &error.to_string());
                None
            }
            Err(_elapsed) => {
                let error = format!("no answer within {REDIS_CHECK_DEADLINE:?}");
                self.switch_to_process(slot, checks, &error);
                None
            }
        }
    }

    async fn run_checks(
        &self,
        slot: Slot,
        checks: &[QuotaCheck],
    ) -> Result<Vec<QuotaStatus>, RedisFailure> {
        let check = async |connection: &mut _| rate_limit::check(checks, connection).await;
        self.redis.run(slot, check).await
    }

    fn switch_to_process(&self, slot: Slot, checks: Vec<QuotaCheck>, error: &str) {
        *lock(&self.unanswered) = Some((slot, checks));
        if self.source.send_replace(Source::Process) == Source::Redis {
            warn!(
                error,
                "Redis does not count requests; each gateway counts for itself until it does"
            );
        }
    }

    /// Probes a Redis that does not answer, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let probing = async {
            let mut source = self.source.subscribe();
            // The sender lives in `self`, so waiting cannot fail.
            while source
                .wait_for(|source| *source == Source::Process)
                .await
                .is_ok()
            {
                self.wait_for_redis().await;
                self.source.send_replace(Source::Redis);
                self.local.remove_full_buckets();
                info!("Redis counts requests again, for all gateways");
            }
        };
        stop.run_until_cancelled(probing).await;
    }

    /// Waits until Redis answers checks.
    async fn wait_for_redis(&self) {
        let mut backoff = Backoff::new(MIN_PROBE_PAUSE, MAX_PROBE_PAUSE);
        loop {
            sleep(backoff.next_wait()).await;
            let unanswered = lock(&self.unanswered).clone();
            let Some((slot, mut checks)) = unanswered else {
                return;
            };
            // The probe is the unanswered check, but takes nothing, and may take as long as a
            // connection needs.
            checks.iter_mut().for_each(|check| check.cost = 0);
            if self.run_checks(slot, &checks).await.is_ok() {
                return;
            }
        }
    }

    /// Counts an attempt to sign in under this name, before its proof is checked. The gateway has
    /// counted it by its address already.
    pub async fn check_sign_in(&self, name: &str) -> Result<(), Denial> {
        let decision = self.ask(RateKey::named(name), &[Policy::SignIn], 1).await;
        decision.denial().map_or(Ok(()), Err)
    }

    /// The addresses that failed authentication too often.
    pub const fn failed_attempts(&self) -> &FailedAttempts {
        &self.failed_attempts
    }

    /// The limiter of open streams.
    pub const fn streams(&self) -> &Arc<ConcurrencyLimiter> {
        &self.open_streams
    }

    /// Counts a request that was refused without a check.
    pub fn record_denial(&self, policy: Policy) {
        self.metrics.limited(policy, self.source());
    }
}

/// The policy that refuses a request, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The policy.
    pub policy: Policy,
    /// The time after which the request may be repeated.
    pub retry_after: Duration,
}

impl Denial {
    /// The message for the client.
    pub fn reason(&self) -> String {
        let what = match self.policy {
            Policy::Write => "changes",
            Policy::Read => "requests",
            Policy::Search => "searches",
            Policy::SignIn => "attempts to sign in",
            Policy::Ingest => "requests that publish",
            Policy::Publish => "bytes published to this run",
            Policy::Failed => "wrong credentials from this address",
        };
        format!("too many {what}: limit {}", self.policy.name())
    }
}

impl Decision {
    /// A decision by these policies.
    pub const fn new(source: Source, statuses: Vec<(Policy, Quota, QuotaStatus)>) -> Self {
        Self { source, statuses }
    }

    /// The denial that lasts longest, if a policy refuses.
    pub fn denial(&self) -> Option<Denial> {
        let denied = self.statuses.iter().filter(|(.., status)| !status.allowed);
        denied
            .map(|(policy, _, status)| Denial {
                policy: *policy,
                retry_after: status.retry_after,
            })
            .max_by_key(|denial| denial.retry_after)
    }

    /// Where the request was counted.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Each policy that was checked, with its quota and what is left of it.
    pub fn quota_statuses(&self) -> &[(Policy, Quota, QuotaStatus)] {
        &self.statuses
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
