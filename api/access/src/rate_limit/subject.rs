//! [`RateKey`]: which requests count together.

use std::fmt;
use std::net::IpAddr;

use uuid::Uuid;

use crate::client_ip::ClientAddress;
use crate::principal::Principal;

/// What requests are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// A user, with all tokens and sessions, or a token without a user; each with the tokens of the
    /// runs that it created or joined.
    Principal(Uuid),
    /// An IPv4 address, or an IPv6 network.
    Address(IpAddr),
    /// A run that is published to.
    Run(Uuid),
    /// The name in attempts to sign in, hashed. The client need not be that user.
    Named(Uuid),
}

impl RateKey {
    /// The key of a principal.
    pub fn of(principal: &Principal) -> Self {
        Self::Principal(principal.quota_owner())
    }

    /// The key of an address.
    pub fn at(address: ClientAddress) -> Self {
        Self::Address(address.client())
    }

    /// The key of a name, whatever its case and surrounding spaces.
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
