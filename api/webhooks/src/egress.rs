//! Where webhooks may lead: to public addresses by https, and to what the operator allows.
//!
//! A user who can make a webhook can make the worker send requests from inside of a cluster. So an
//! address is checked after its name was resolved, by the resolver of the very connection: a name
//! that resolves differently the second time gains nothing. Loopback, private, link-local (where
//! clouds have their metadata services) and all other special addresses are denied, unless
//! `RUNCAST_WEBHOOK_ALLOW` names the host or a network around it. Such hosts and networks may also
//! be reached by http.
//!
//! Bounds: [`MAX_URL_BYTES`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Longest address of a webhook, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// IPv4 networks that are not public, by the IANA registry of special addresses, and the platform
/// address of Azure.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// The only part of IPv6 from which public addresses are assigned ...
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);

/// ... except for these: protocol assignments and Teredo, documentation (twice), 6to4.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0], 23),
    v6([0x2001, 0xdb8], 32),
    v6([0x3fff, 0], 20),
    v6([0x2002, 0], 16),
];

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6([a, b]: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// Whether an address belongs to the public internet.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address) && !SPECIAL_V6.iter().any(|net| net.contains(&address))
        }
    }
}

/// `RUNCAST_WEBHOOK_ALLOW`: hosts and networks that webhooks may lead to although they are not
/// public, also by http.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

/// The value of `RUNCAST_WEBHOOK_ALLOW` is not a list of hosts and networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host nor a network: expected a list such as 10.0.0.0/8,hooks.internal")]
pub struct InvalidEgressPolicy(String);

impl FromStr for EgressPolicy {
    type Err = InvalidEgressPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidEgressPolicy> {
        let mut allowed = Self::default();
        for item in text.split(',').map(str::trim) {
            if let Ok(network) = item.parse() {
                allowed.networks.push(network);
            } else if let Ok(address) = item.parse::<IpAddr>() {
                allowed.networks.push(address.into());
            } else {
                // In the form that URLs have it: lower case, without special characters.
                let host = Host::parse(item).ok();
                let Some(Host::Domain(host)) = host.filter(|_| !item.is_empty()) else {
                    return Err(InvalidEgressPolicy(item.to_owned()));
                };
                allowed.hosts.push(host);
            }
        }
        Ok(allowed)
    }
}

impl EgressPolicy {
    fn allows_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|name| name == host)
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// Checks the address of a webhook as far as that is possible without resolving its host.
    ///
    /// # Errors
    /// Says what is wrong with the address.
    pub fn check(&self, url: &Url) -> Result<(), EgressDenied> {
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(EgressDenied::Long);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressDenied::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressDenied::Credentials);
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(EgressDenied::Scheme),
        };
        match literal {
            Some(address) if self.allows_address(address) => Ok(()),
            Some(address) if !is_public(address) => Err(EgressDenied::Address(address)),
            // A name may still lie within an allowed network: the resolver checks it.
            None if !self.networks.is_empty()
                || url.host_str().is_some_and(|host| self.allows_host(host)) =>
            {
                Ok(())
            }
            _ if url.scheme() == "http" => Err(EgressDenied::Http),
            _ => Ok(()),
        }
    }

    /// The addresses of a host that may be connected to.
    fn filter(
        &self,
        host: &str,
        secure: bool,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, EgressDenied> {
        let is_named = self.allows_host(host);
        let (mut allowed, mut denied) = (Vec::new(), EgressDenied::Nowhere);
        for address in addresses {
            let ip = address.ip();
            if is_named || self.allows_address(ip) || (secure && is_public(ip)) {
                allowed.push(address);
            } else if is_public(ip) {
                denied = EgressDenied::Http;
            } else {
                denied = EgressDenied::Address(ip);
            }
        }
        if allowed.is_empty() {
            Err(denied)
        } else {
            Ok(allowed)
        }
    }
}

/// Why a webhook may not lead to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressDenied {
    /// It is too long.
    #[error("the address is over the limit of {MAX_URL_BYTES} bytes")]
    Long,
    /// It is not a web address.
    #[error("expected an address such as https://host/path")]
    Scheme,
    /// It holds a secret, which would appear in every log.
    #[error("the address holds a user name or password; deliveries are signed instead")]
    Credentials,
    /// It is not encrypted.
    #[error("http is only for hosts and networks that RUNCAST_WEBHOOK_ALLOW names: use https")]
    Http,
    /// It is loopback, private, link-local or otherwise special.
    #[error(
        "{0} is not a public address; RUNCAST_WEBHOOK_ALLOW may name it, its network or its host"
    )]
    Address(IpAddr),
    /// Its host has no address.
    #[error("the host has no address")]
    Nowhere,
}

/// Resolves the names of connections, but only to addresses that the policy allows.
#[derive(Clone)]
pub(crate) struct Resolver {
    pub(crate) egress: EgressPolicy,
    pub(crate) secure: bool,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            // The connector sets the port.
            let resolved = tokio::net::lookup_host((host, 0)).await?;
            let allowed = this.egress.filter(host, this.secure, resolved)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &str, url: &str) -> Result<(), EgressDenied> {
        let allowed = match allowed {
            "" => EgressPolicy::default(),
            list => list.parse().expect(list),
        };
        allowed.check(&url.parse().expect(url))
    }

    #[test]
    fn only_public_addresses_by_https_are_allowed() {
        for good in [
            "https://example.com/hook",
            "https://93.184.215.14/",
            "https://[2606:4700::1]/",
            "https://1.1.1.1:8443/",
        ] {
            assert_eq!(check("", good), Ok(()), "{good}");
        }
        for bad in [
            // In every spelling that a resolver would accept, too.
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "[2001:0:1::]",
            "[2001:db8::1]",
            "[ff02::1]",
        ] {
            let denied = check("", &format!("https://{bad}/"));
            assert!(
                matches!(denied, Err(EgressDenied::Address(_))),
                "{bad}: {denied:?}"
            );
        }
        assert_eq!(check("", "http://example.com/"), Err(EgressDenied::Http));
        assert_eq!(check("", "ftp://example.com/"), Err(EgressDenied::Scheme));
        assert_eq!(
            check("", "https://me:secret@example.com/"),
            Err(EgressDenied::Credentials)
        );
        assert_eq!(
            check("", &format!("https://example.com/{}", "x".repeat(3000))),
            Err(EgressDenied::Long)
        );
    }

    #[test]
    fn allowed_hosts_and_networks_may_use_http() {
        let list = "10.1.0.0/16, hooks.internal,fd00::/8,127.0.0.1";
        for good in [
            "http://10.1.2.3/",
            "http://HOOKS.internal:8080/",
            "https://[fd00::1]/",
            "http://[::ffff:10.1.2.3]/",
            "http://127.0.0.1/",
        ] {
            assert_eq!(check(list, good), Ok(()), "{good}");
        }
        assert!(check(list, "http://10.2.0.1/").is_err());
        assert!(check(list, "https://127.0.0.2/").is_err());
        for bad in ["", "10.0.0.0/33", "a b", "x,,y", "https://host"] {
            bad.parse::<EgressPolicy>().expect_err(bad);
        }
    }

    #[test]
    fn a_name_is_checked_by_the_addresses_it_resolves_to() {
        let at = |text: &str| SocketAddr::new(text.parse().expect(text), 0);
        let allowed: EgressPolicy = "10.1.0.0/16,hooks.internal".parse().expect("a list");
        let filter = |host: &str, secure: bool, resolved: &[&str]| {
            allowed.filter(host, secure, resolved.iter().map(|text| at(text)))
        };
        assert_eq!(
            filter("evil", true, &["169.254.169.254"]),
            Err(EgressDenied::Address(at("169.254.169.254").ip()))
        );
        // Of several addresses, the allowed ones.
        assert_eq!(
            filter("mixed", true, &["10.9.9.9", "1.1.1.1"]),
            Ok(vec![at("1.1.1.1")])
        );
        assert_eq!(
            filter("public", false, &["1.1.1.1"]),
            Err(EgressDenied::Http)
        );
        assert_eq!(
            filter("inside", false, &["10.1.0.7"]),
            Ok(vec![at("10.1.0.7")])
        );
        assert_eq!(
            filter("hooks.internal", false, &["192.168.7.7"]),
            Ok(vec![at("192.168.7.7")])
        );
        assert_eq!(filter("nothing", true, &[]), Err(EgressDenied::Nowhere));
    }
}
