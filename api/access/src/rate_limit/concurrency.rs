//! Open streams, counted exactly, and how many one may have.
//!
//! They are counted in this process and not over all replicas: what they bound is what a client can take from this
//! process (sockets, memory), and a count in Redis would have to be repaired whenever a process dies with its
//! connections. Data: a number for each principal and each address that has a stream open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::metrics::Metrics;
use super::subject::RateKey;

/// The open streams of this process.
#[derive(Debug, Default)]
pub struct ConcurrencyLimiter {
    taken: Mutex<HashMap<RateKey, u32>>,
    meter: Metrics,
}

/// One open stream; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    places: Arc<ConcurrencyLimiter>,
    principal: RateKey,
    address: RateKey,
}

/// Who has too many streams open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The principal.
    Principal,
    /// The address.
    Address,
}

impl LimitReached {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Address => "address",
        }
    }
}

impl ConcurrencyLimiter {
    /// None are open.
    #[must_use]
    pub fn new(meter: Metrics) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            meter,
        })
    }

    /// Takes a place, if both have fewer than their most.
    ///
    /// # Errors
    /// [`LimitReached`], and nothing is taken.
    pub fn take(
        self: &Arc<Self>,
        principal: (RateKey, Option<u32>),
        address: (RateKey, Option<u32>),
    ) -> Result<Permit, LimitReached> {
        let mut taken = self.lock();
        for ((subject, most), full) in [
            (principal, LimitReached::Principal),
            (address, LimitReached::Address),
        ] {
            let count = taken.get(&subject).copied().unwrap_or(0);
            if most.is_some_and(|most| count >= most) {
                self.meter.refused(full);
                return Err(full);
            }
        }
        let (principal, address) = (principal.0, address.0);
        for subject in [principal, address] {
            *taken.entry(subject).or_default() += 1;
        }
        self.meter.streams.inc();
        Ok(Permit {
            places: Arc::clone(self),
            principal,
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RateKey, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        for subject in [self.principal, self.address] {
            if let Entry::Occupied(mut count) = taken.entry(subject) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        self.places.meter.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use uuid::Uuid;

    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = ConcurrencyLimiter::new(Metrics::default());
        let token = |number| (RateKey::Principal(Uuid::from_u128(number)), Some(2));
        let address = |last| {
            let address = Ipv4Addr::new(192, 0, 2, last);
            (RateKey::Address(IpAddr::V4(address)), Some(3))
        };
        let first = places.take(token(1), address(1)).expect("room");
        let second = places.take(token(1), address(1)).expect("room");
        let full = |taken: Result<Permit, LimitReached>| taken.expect_err("no room");
        assert_eq!(
            full(places.take(token(1), address(2))),
            LimitReached::Principal
        );
        let third = places.take(token(2), address(1)).expect("room");
        assert_eq!(
            full(places.take(token(3), address(1))),
            LimitReached::Address
        );
        drop(first);
        drop(places.take(token(1), address(1)).expect("room again"));
        drop((second, third));
        assert!(places.lock().is_empty());
        let unlimited = (RateKey::Principal(Uuid::nil()), None);
        let all: Vec<_> = (0..10)
            .map(|_| places.take(unlimited, (address(9).0, None)))
            .collect();
        assert!(all.iter().all(Result::is_ok));
    }
}
