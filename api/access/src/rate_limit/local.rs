//! [`LocalLimiter`]: the limits of this process, while Redis does not answer.
//!
//! Memory is bounded: each policy counts in at most [`MAX_BUCKETS`] buckets. A subject's bucket is
//! chosen by a hash with a random key, so that no client can predict it; two subjects rarely share
//! one. A sliding window is counted as a rate (GCRA) here.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Allowed, RateLimiter};
use runcast_common::rate_limit::{Quota, QuotaStatus};

use super::policy::{LimitConfig, Policy};
use super::subject::RateKey;

/// Buckets of each policy: with tens of bytes each, less than 3 MiB.
const MAX_BUCKETS: u64 = 1 << 15;

type Limiter = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// The limits of this process.
#[derive(Debug)]
pub struct LocalLimiter {
    limiters: Vec<(Policy, Quota, Limiter)>,
    clock: DefaultClock,
    hash: RandomState,
}

impl LocalLimiter {
    /// A limiter with full quotas.
    pub fn new(config: &LimitConfig) -> Self {
        let limiter = |policy| {
            let quota = config.quota(policy)?;
            let burst = NonZeroU32::new(u32::try_from(quota.burst).unwrap_or(u32::MAX))?;
            let unit = Duration::from_nanos(nanos_of_unit(&quota));
            let allowed = Allowed::with_period(unit)?.allow_burst(burst);
            let limiter = RateLimiter::dashmap(allowed).with_middleware();
            Some((policy, quota, limiter))
        };
        Self {
            limiters: Policy::ALL.into_iter().filter_map(limiter).collect(),
            clock: DefaultClock::default(),
            hash: RandomState::new(),
        }
    }

    /// Takes `cost` from the quota of a subject. None if the policy is off, and so allows all.
    pub fn check(&self, subject: RateKey, policy: Policy, cost: u64) -> Option<QuotaStatus> {
        let (_, quota, limiter) = self.limiters.iter().find(|(of, ..)| *of == policy)?;
        let bucket = self.hash.hash_one(subject) % MAX_BUCKETS;
        let cost = NonZeroU32::new(u32::try_from(cost).unwrap_or(u32::MAX))?;
        let unit = Duration::from_nanos(nanos_of_unit(quota));
        let status = match limiter.check_key_n(&bucket, cost) {
            Ok(Ok(state)) => {
                let remaining = state.remaining_burst_capacity();
                let used = quota.burst.saturating_sub(u64::from(remaining));
                QuotaStatus {
                    allowed: true,
                    remaining: u64::from(remaining),
                    reset: unit.saturating_mul(u32::try_from(used).unwrap_or(u32::MAX)),
                    retry_after: Duration::ZERO,
                }
            }
            Ok(Err(until)) => QuotaStatus {
                allowed: false,
                remaining: 0,
                reset: quota.full_after(),
                retry_after: until.wait_time_from(self.clock.now()),
            },
            // The cost exceeds the whole burst.
            Err(_) => QuotaStatus {
                allowed: false,
                remaining: 0,
                reset: quota.full_after(),
                retry_after: quota.full_after(),
            },
        };
        Some(status)
    }

    /// Removes buckets with full quotas.
    pub fn remove_full_buckets(&self) {
        for (_, _, limiter) in &self.limiters {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

fn nanos_of_unit(quota: &Quota) -> u64 {
    let nanos = quota.period.as_nanos() / u128::from(quota.units.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_refused_by_each_policy_separately() {
        let config: LimitConfig = "write=60/min:3,read=off".parse().expect("a config");
        let limits = LocalLimiter::new(&config);
        let one = RateKey::Principal(Uuid::from_u128(1));
        let left: Vec<_> = (0..4)
            .filter_map(|_| limits.check(one, Policy::Write, 1))
            .map(|status| (status.allowed, status.remaining))
            .collect();
        assert_eq!(left, [(true, 2), (true, 1), (true, 0), (false, 0)]);
        let refused = limits.check(one, Policy::Write, 1).expect("it is on");
        assert!(refused.retry_after <= Duration::from_secs(1), "{refused:?}");
        assert!(limits.check(one, Policy::Read, 1).is_none());
        let too_much = limits.check(one, Policy::Write, 4).expect("it is on");
        assert!(!too_much.allowed);
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_subjects() {
        let limits = LocalLimiter::new(&LimitConfig::default());
        for number in 0..2 * u128::from(MAX_BUCKETS) {
            let subject = RateKey::Principal(Uuid::from_u128(number));
            let _status = limits.check(subject, Policy::Read, 1);
        }
        let (_, _, limiter) = &limits.limiters[Policy::Read as usize];
        assert!(limiter.len() as u64 <= MAX_BUCKETS);
        limits.remove_full_buckets();
        assert!(limiter.len() as u64 <= MAX_BUCKETS);
    }
}
