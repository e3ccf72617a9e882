//! [`ConcurrencyLimiter`]: counts the open streams of each client exactly, and bounds them.
//!
//! Streams are counted in this process, not over all gateways. The limit bounds what a client can
//! take from this process (sockets, memory), and a count in Redis would need a repair whenever a
//! process dies with its connections. Data: a number for each principal and each address with an
//! open stream.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::metrics::RateLimitMetrics;
use super::subject::RateKey;

/// The open streams of this process.
#[derive(Debug, Default)]
pub struct ConcurrencyLimiter {
    open_streams: Mutex<HashMap<RateKey, u32>>,
    metrics: RateLimitMetrics,
}

/// The right to one open stream; released when it is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<ConcurrencyLimiter>,
    principal: RateKey,
    address: RateKey,
}

/// What has too many open streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The principal.
    Principal,
    /// The address.
    Address,
}

impl LimitReached {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Address => "address",
        }
    }
}

impl ConcurrencyLimiter {
    /// A limiter without open streams.
    pub fn new(metrics: RateLimitMetrics) -> Arc<Self> {
        Arc::new(Self {
            open_streams: Mutex::default(),
            metrics,
        })
    }

    /// Acquires a permit, if both keys have fewer open streams than their maximum.
    pub fn take(
        self: &Arc<Self>,
        principal: (RateKey, Option<u32>),
        address: (RateKey, Option<u32>),
    ) -> Result<Permit, LimitReached> {
        let mut open_streams = self.lock();
        for ((key, max), reached) in [
            (principal, LimitReached::Principal),
            (address, LimitReached::Address),
        ] {
            let count = open_streams.get(&key).copied().unwrap_or(0);
            if max.is_some_and(|max| count >= max) {
                self.metrics.refused(reached);
                return Err(reached);
            }
        }
        let (principal, address) = (principal.0, address.0);
        for key in [principal, address] {
            *open_streams.entry(key).or_default() += 1;
        }
        self.metrics.streams.inc();
        Ok(Permit {
            limiter: Arc::clone(self),
            principal,
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RateKey, u32>> {
        self.open_streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open_streams = self.limiter.lock();
        for key in [self.principal, self.address] {
            if let Entry::Occupied(mut count) = open_streams.entry(key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        self.limiter.metrics.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use uuid::Uuid;

    use super::*;

    #[test]
    fn permits_are_bounded_and_released() {
        let limiter = ConcurrencyLimiter::new(RateLimitMetrics::default());
        let token = |number| (RateKey::Principal(Uuid::from_u128(number)), Some(2));
        let address = |last| {
            let address = Ipv4Addr::new(192, 0, 2, last);
            (RateKey::Address(IpAddr::V4(address)), Some(3))
        };
        let first = limiter.take(token(1), address(1)).expect("room");
        let second = limiter.take(token(1), address(1)).expect("room");
        let reached = |acquired: Result<Permit, LimitReached>| acquired.expect_err("no room");
        assert_eq!(
            reached(limiter.take(token(1), address(2))),
            LimitReached::Principal
        );
        let third = limiter.take(token(2), address(1)).expect("room");
        assert_eq!(
            reached(limiter.take(token(3), address(1))),
            LimitReached::Address
        );
        drop(first);
        drop(limiter.take(token(1), address(1)).expect("room again"));
        drop((second, third));
        assert!(limiter.lock().is_empty());
        let unlimited = (RateKey::Principal(Uuid::nil()), None);
        let all: Vec<_> = (0..10)
            .map(|_| limiter.take(unlimited, (address(9).0, None)))
            .collect();
        assert!(all.iter().all(Result::is_ok));
    }
}
