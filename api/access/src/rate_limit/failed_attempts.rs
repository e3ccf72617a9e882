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

use http::{HeaderMap, header};
use quick_cache::sync::Cache;

use super::super::client_ip::ClientAddress;

/// Addresses that are remembered: one who has more than these needs no address twice.
const ADDRESSES: usize = 10_000;

/// Credentials that are remembered.
const CREDENTIALS: usize = 10_000;

/// What a request shows. An extension of every request that shows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKey {
    /// A token or cookies, by what they are known by: they cannot be told from it, nor it be foreseen.
    Lasting(u64),
    /// A ticket. It is right once, so there is nothing to know it by afterwards.
    Once,
}

/// Who has to wait, and who need not.
#[derive(Debug)]
pub struct FailedAttempts {
    waiting: Cache<IpAddr, Instant>,
    right: Cache<u64, ()>,
    hash: RandomState,
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self {
            waiting: Cache::new(ADDRESSES),
            right: Cache::new(CREDENTIALS),
            hash: RandomState::new(),
        }
    }
}

impl FailedAttempts {
    /// What a request shows, if anything: its ticket if it is for a stream, else its token and all its cookies.
    #[must_use]
    pub fn shown(&self, has_ticket: bool, headers: &HeaderMap) -> Option<AttemptKey> {
        if has_ticket {
            return Some(AttemptKey::Once);
        }
        let authorization = headers.get_all(header::AUTHORIZATION).iter();
        let shown: Vec<&[u8]> = authorization
            .chain(headers.get_all(header::COOKIE))
            .map(|value| value.as_bytes())
            .collect();
        (!shown.is_empty()).then(|| AttemptKey::Lasting(self.hash.hash_one(shown)))
    }

    /// How long an address has to wait before what it shows is looked at, if it has to.
    #[must_use]
    pub fn wait(&self, address: ClientAddress, shown: Option<AttemptKey>) -> Option<Duration> {
        if let Some(AttemptKey::Lasting(known)) = shown
            && self.right.contains_key(&known)
        {
            return None;
        }
        let until = self.waiting.get(&address.client())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// It was right.
    pub fn was_right(&self, shown: AttemptKey) {
        if let AttemptKey::Lasting(known) = shown
            && self.right.get(&known).is_none()
        {
            self.right.insert(known, ());
        }
    }

    /// It was wrong, or is no longer right.
    pub fn was_wrong(&self, shown: AttemptKey) {
        if let AttemptKey::Lasting(known) = shown {
            self.right.remove(&known);
        }
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
        let guesses = FailedAttempts::default();
        let headers = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            headers
        };
        let address = ClientAddress("192.0.2.1".parse().expect("an address"));
        let known = guesses.shown(false, &headers(header::AUTHORIZATION, "Bearer right"));
        let guess = guesses.shown(false, &headers(header::COOKIE, "session=guess"));
        assert_ne!(known, guess);
        assert_eq!(guesses.shown(false, &HeaderMap::new()), None);
        guesses.was_right(known.expect("shown"));
        guesses.let_wait(address, Duration::from_secs(60));
        assert_eq!(guesses.wait(address, known), None);
        assert!(guesses.wait(address, guess).is_some());
        assert!(guesses.wait(address, None).is_some());
        let other = ClientAddress("192.0.2.2".parse().expect("an address"));
        assert_eq!(guesses.wait(other, guess), None);
        let ticket = guesses.shown(true, &HeaderMap::new());
        guesses.was_right(ticket.expect("shown"));
        assert!(guesses.wait(address, ticket).is_some());
        guesses.was_wrong(known.expect("shown"));
        assert!(guesses.wait(address, known).is_some());
        guesses.let_wait(address, Duration::ZERO);
        assert_eq!(guesses.wait(address, guess), None);
    }
}
