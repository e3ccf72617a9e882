//! Who shows wrong credentials too often.
//!
//! Each wrong one is counted by address, for all replicas, when it was looked up in vain. Once there were too many, this
//! process refuses that address before any look-up, until the next one would be allowed. Whoever showed a right
//! credential here lately is let through all the same, so that one who guesses does not shut out others behind the same
//! address.
//!
//! Data: addresses that have to wait, and keyed hashes of credentials that were right; both bounded, the oldest go first.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use quick_cache::sync::Cache;

use super::super::address::ClientAddress;

/// Addresses that are remembered: one who has more than these needs no address twice.
const ADDRESSES: usize = 10_000;

/// Credentials that are remembered.
const CREDENTIALS: usize = 10_000;

/// What a credential is known by: it cannot be told from it, nor foreseen. An extension of every request that shows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shown(u64);

/// Who has to wait, and who need not.
#[derive(Debug)]
pub struct Guesses {
    waiting: Cache<IpAddr, Instant>,
    right: Cache<Shown, ()>,
    hash: RandomState,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            waiting: Cache::new(ADDRESSES),
            right: Cache::new(CREDENTIALS),
            hash: RandomState::new(),
        }
    }
}

impl Guesses {
    /// What a request shows, if anything: its token, or all its cookies.
    #[must_use]
    pub fn shown(&self, headers: &HeaderMap) -> Option<Shown> {
        let authorization = headers.get_all(header::AUTHORIZATION).iter();
        let shown: Vec<&[u8]> = authorization
            .chain(headers.get_all(header::COOKIE))
            .map(|value| value.as_bytes())
            .collect();
        (!shown.is_empty()).then(|| Shown(self.hash.hash_one(shown)))
    }

    /// How long an address has to wait before what it shows is looked at, if it has to.
    #[must_use]
    pub fn wait(&self, address: ClientAddress, shown: Option<Shown>) -> Option<Duration> {
        if shown.is_some_and(|shown| self.right.contains_key(&shown)) {
            return None;
        }
        let until = self.waiting.get(&address.client())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// It was right.
    pub fn was_right(&self, shown: Shown) {
        if self.right.get(&shown).is_none() {
            self.right.insert(shown, ());
        }
    }

    /// It was wrong, or is no longer right.
    pub fn was_wrong(&self, shown: Shown) {
        self.right.remove(&shown);
    }

    /// This address has to wait.
    pub fn let_wait(&self, address: ClientAddress, time: Duration) {
        self.waiting.insert(address.client(), Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_and_who_is_known_does_not() {
        let guesses = Guesses::default();
        let headers = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            headers
        };
        let address = ClientAddress("192.0.2.1".parse().expect("an address"));
        let known = guesses.shown(&headers(header::AUTHORIZATION, "Bearer right"));
        let guess = guesses.shown(&headers(header::COOKIE, "session=guess"));
        assert_ne!(known, guess);
        assert_eq!(guesses.shown(&HeaderMap::new()), None);
        guesses.was_right(known.expect("shown"));
        guesses.let_wait(address, Duration::from_secs(60));
        assert_eq!(guesses.wait(address, known), None);
        assert!(guesses.wait(address, guess).is_some());
        assert!(guesses.wait(address, None).is_some());
        let other = ClientAddress("192.0.2.2".parse().expect("an address"));
        assert_eq!(guesses.wait(other, guess), None);
        guesses.was_wrong(known.expect("shown"));
        assert!(guesses.wait(address, known).is_some());
        guesses.let_wait(address, Duration::ZERO);
        assert_eq!(guesses.wait(address, guess), None);
    }
}
