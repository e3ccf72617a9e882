//! Whose requests are counted together.

use std::fmt;
use std::net::IpAddr;

use uuid::Uuid;

use super::super::client_ip::ClientAddress;
use super::super::principal::Principal;

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// Those of a user, by whichever tokens and sessions, or of a token that no user has made.
    Principal(Uuid),
    /// Those of an address, or of an IPv6 network.
    Address(IpAddr),
    /// Those that publish to a run.
    Run(Uuid),
    /// Those that name somebody, whom they need not be: a hash of the name.
    Named(Uuid),
}

impl RateKey {
    /// The principal behind a request.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        Self::Principal(principal.user.unwrap_or(principal.id))
    }

    /// Where a request came from.
    #[must_use]
    pub fn at(address: ClientAddress) -> Self {
        Self::Address(address.client())
    }

    /// Whom an attempt to sign in names, however it is spelt.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = name.trim().to_lowercase();
        Self::Named(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

impl fmt::Display for RateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(id) => write!(f, "principal/{id}"),
            Self::Address(address) => write!(f, "address/{address}"),
            Self::Run(id) => write!(f, "run/{id}"),
            Self::Named(id) => write!(f, "named/{id}"),
        }
    }
}
