//! The same limits counted in this process alone, while Redis does not answer.
//!
//! Memory is bounded by what is counted under: not the subject but a number of [`BUCKETS`], chosen by a hash that nobody
//! outside can foresee, so two subjects may rarely share one. A window is counted as a rate here.

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

/// Counts of each policy at most: with tens of bytes each, less than 3 MiB.
const BUCKETS: u64 = 1 << 15;

type Limiter = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// The limits of this process.
#[derive(Debug)]
pub struct LocalLimiter {
    limiters: Vec<(Policy, Quota, Limiter)>,
    clock: DefaultClock,
    hash: RandomState,
}

impl LocalLimiter {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(rules: &LimitConfig) -> Self {
        let limiter = |policy| {
            let quota = rules.quota(policy)?;
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

    /// Asks a policy. What is off allows everything.
    #[must_use]
    pub fn ask(&self, subject: RateKey, policy: Policy, cost: u64) -> Option<QuotaStatus> {
        let (_, quota, limiter) = self.limiters.iter().find(|(of, ..)| *of == policy)?;
        let bucket = self.hash.hash_one(subject) % BUCKETS;
        let cost = NonZeroU32::new(u32::try_from(cost).unwrap_or(u32::MAX))?;
        let unit = Duration::from_nanos(nanos_of_unit(quota));
        let standing = match limiter.check_key_n(&bucket, cost) {
            Ok(Ok(state)) => {
                let remaining = state.remaining_burst_capacity();
                let taken = quota.burst.saturating_sub(u64::from(remaining));
                QuotaStatus {
                    allowed: true,
                    remaining: u64::from(remaining),
                    reset: unit.saturating_mul(u32::try_from(taken).unwrap_or(u32::MAX)),
                    retry_after: Duration::ZERO,
                }
            }
            Ok(Err(until)) => QuotaStatus {
                allowed: false,
                remaining: 0,
                reset: quota.full_after(),
                retry_after: until.wait_time_from(self.clock.now()),
            },
            // More than can ever be had.
            Err(_) => QuotaStatus {
                allowed: false,
                remaining: 0,
                reset: quota.full_after(),
                retry_after: quota.full_after(),
            },
        };
        Some(standing)
    }

    /// Forgets what is forgiven.
    pub fn tidy(&self) {
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
    fn a_burst_is_allowed_and_then_refused_each_for_itself() {
        let rules: LimitConfig = "write=60/min:3,read=off".parse().expect("rules");
        let limits = LocalLimiter::new(&rules);
        let one = RateKey::Principal(Uuid::from_u128(1));
        let left: Vec<_> = (0..4)
            .filter_map(|_| limits.ask(one, Policy::Write, 1))
            .map(|standing| (standing.allowed, standing.remaining))
            .collect();
        assert_eq!(left, [(true, 2), (true, 1), (true, 0), (false, 0)]);
        let refused = limits.ask(one, Policy::Write, 1).expect("it is on");
        assert!(refused.retry_after <= Duration::from_secs(1), "{refused:?}");
        assert!(limits.ask(one, Policy::Read, 1).is_none());
        let too_much = limits.ask(one, Policy::Write, 4).expect("it is on");
        assert!(!too_much.allowed);
    }

    #[test]
    fn memory_is_bounded_however_many_ask() {
        let limits = LocalLimiter::new(&LimitConfig::default());
        for number in 0..2 * u128::from(BUCKETS) {
            let subject = RateKey::Principal(Uuid::from_u128(number));
            let _standing = limits.ask(subject, Policy::Read, 1);
        }
        let (_, _, limiter) = &limits.limiters[Policy::Read as usize];
        assert!(limiter.len() as u64 <= BUCKETS);
        limits.tidy();
        assert!(limiter.len() as u64 <= BUCKETS);
    }
}
