//! [`FailedAttempts`]: throttles clients that fail authentication too often.
//!
//! Each failed attempt is counted by address, for all gateways, after the look-up. After too many,
//! this process refuses the address before any look-up, until the next attempt would be allowed.
//! Credentials that were valid here lately pass anyway, so that a client that guesses does not lock
//! out others behind the same address.
//!
//! Data: blocked addresses, and keyed hashes of valid credentials; both bounded, old ones are
//! evicted.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use quick_cache::sync::Cache;

use crate::client_ip::ClientAddress;

/// Blocked addresses: an attacker with more than these needs no address twice.
const MAX_BLOCKED_ADDRESSES: usize = 10_000;

/// Valid credentials that are remembered.
const MAX_VALID_CREDENTIALS: usize = 10_000;

/// Identifies the credentials of a request; an extension of every request that presents some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKey {
    /// A token or cookies, by a keyed hash: it neither reveals them nor can be predicted.
    Reusable(u64),
    /// A ticket. It is valid once, so there is no need to recognize it later.
    SingleUse,
}

/// Blocked addresses, and the credentials that pass anyway.
#[derive(Debug)]
pub struct FailedAttempts {
    /// Until when an address is blocked.
    blocked_until: Cache<IpAddr, Instant>,
    valid: Cache<u64, ()>,
    hash: RandomState,
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self {
            blocked_until: Cache::new(MAX_BLOCKED_ADDRESSES),
            valid: Cache::new(MAX_VALID_CREDENTIALS),
            hash: RandomState::new(),
        }
    }
}

impl FailedAttempts {
    /// The key of the credentials of a request: its ticket if it has one, else its token and all
    /// its cookies. None without credentials.
    pub fn shown(&self, has_ticket: bool, headers: &HeaderMap) -> Option<AttemptKey> {
        if has_ticket {
            return Some(AttemptKey::SingleUse);
        }
        let authorization = headers.get_all(header::AUTHORIZATION).iter();
        let presented: Vec<&[u8]> = authorization
            .chain(headers.get_all(header::COOKIE))
            .map(|value| value.as_bytes())
            .collect();
        (!presented.is_empty()).then(|| AttemptKey::Reusable(self.hash.hash_one(presented)))
    }

    /// How long an address is still blocked, unless these credentials pass anyway.
    pub fn wait(&self, address: ClientAddress, key: Option<AttemptKey>) -> Option<Duration> {
        if let Some(AttemptKey::Reusable(hash)) = key
            && self.valid.contains_key(&hash)
        {
            return None;
        }
        let until = self.blocked_until.get(&address.client())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Records that these credentials are valid.
    pub fn record_valid(&self, key: AttemptKey) {
        if let AttemptKey::Reusable(hash) = key
            && self.valid.get(&hash).is_none()
        {
            self.valid.insert(hash, ());
        }
    }

    /// Records that these credentials are not valid, or not any more.
    pub fn record_invalid(&self, key: AttemptKey) {
        if let AttemptKey::Reusable(hash) = key {
            self.valid.remove(&hash);
        }
    }

    /// Blocks an address for this time.
    pub fn block(&self, address: ClientAddress, time: Duration) {
        self.blocked_until
            .insert(address.client(), Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_address_waits_unless_its_credential_was_valid() {
        let attempts = FailedAttempts::default();
        let headers = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            headers
        };
        let address = ClientAddress("192.0.2.1".parse().expect("an address"));
        let valid = attempts.shown(false, &headers(header::AUTHORIZATION, "Bearer right"));
        let wrong = attempts.shown(false, &headers(header::COOKIE, "session=guess"));
        assert_ne!(valid, wrong);
        assert_eq!(attempts.shown(false, &HeaderMap::new()), None);
        attempts.record_valid(valid.expect("a key"));
        attempts.block(address, Duration::from_secs(60));
        assert_eq!(attempts.wait(address, valid), None);
        assert!(attempts.wait(address, wrong).is_some());
        assert!(attempts.wait(address, None).is_some());
        let other = ClientAddress("192.0.2.2".parse().expect("an address"));
        assert_eq!(attempts.wait(other, wrong), None);
        let ticket = attempts.shown(true, &HeaderMap::new());
        attempts.record_valid(ticket.expect("a key"));
        assert!(attempts.wait(address, ticket).is_some());
        attempts.record_invalid(valid.expect("a key"));
        assert!(attempts.wait(address, valid).is_some());
        attempts.block(address, Duration::ZERO);
        assert_eq!(attempts.wait(address, wrong), None);
    }
}
