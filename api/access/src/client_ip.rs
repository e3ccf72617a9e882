//! [`ClientAddress`]: where a request came from, as rate limits and the audit log use it.
//!
//! It is the address of the peer, unless the peer is a proxy that the operator trusts
//! (`RUNCAST_TRUSTED_PROXIES`). Such a proxy appends the address of its own peer to
//! `X-Forwarded-For`. So that header is read from its end, past the addresses of trusted proxies:
//! the first other address is the client, whatever a client wrote in front of it.
//!
//! The header `Forwarded` of RFC 7239 is not read. A proxy that appends to one of the two headers
//! forwards the other as the client sent it, so a server that trusts both trusts the client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use ipnet::IpNet;

/// The header that proxies append addresses to.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Bits of an IPv6 address that identify a client: the other 64 are the customer's to choose.
const IPV6_CLIENT_BITS: u32 = 64;

/// Where a request came from; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address that counts as one client: an IPv4 address, or the network of an IPv6 address,
    /// followed by zeros.
    pub fn client(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << (128 - IPV6_CLIENT_BITS));
                Ipv6Addr::from_bits(network).into()
            }
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `RUNCAST_TRUSTED_PROXIES`: addresses and networks such as `10.0.0.0/8,192.0.2.7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |text: &str| {
            let alone = text.parse::<IpAddr>().map(IpNet::from);
            alone
                .or_else(|_no_address| text.parse())
                .map_err(|_no_network| {
                    format!(
                        "{text:?} is not an address or network, such as 192.0.2.7 or 10.0.0.0/8"
                    )
                })
        };
        let all = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        Ok(Self(all.map(network).collect::<Result<_, _>>()?))
    }
}

impl TrustedProxies {
    /// The client that sent a request with these headers over a connection from `peer`.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        if self.trusts(client) {
            let lines = headers.get_all(FORWARDED_FOR).iter().rev();
            let addresses = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
            for one in addresses {
                // No proxy writes this, so no trusted proxy did.
                let Some(address) = parse(one) else { break };
                client = address;
                if !self.trusts(client) {
                    break;
                }
            }
        }
        ClientAddress(client)
    }

    /// Whether an untrusted peer names a client: most likely a proxy that the operator has not
    /// listed.
    pub fn is_unlisted_proxy(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        headers.contains_key(FORWARDED_FOR) && !self.trusts(peer.to_canonical())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address as proxies write it, some with a port.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse().ok();
    address
        .or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &str, peer: &str, lines: &[&str]) -> String {
        let proxies: TrustedProxies = proxies.parse().expect("networks");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        let peer = peer.parse().expect("an address");
        proxies.client(peer, &headers).to_string()
    }

    #[test]
    fn forwarded_addresses_are_read_only_from_trusted_proxies() {
        let forged = ["1.1.1.1, 2.2.2.2"];
        assert_eq!(client("", "9.9.9.9", &forged), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", "9.9.9.9", &forged), "9.9.9.9");
        assert_eq!(client("9.9.9.9", "9.9.9.9", &forged), "2.2.2.2");
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let trusted = "10.0.0.0/8, fd00::/8";
        for (lines, expected) in [
            (&["1.1.1.1, 2.2.2.2, 10.0.0.9"][..], "2.2.2.2"),
            (&["1.1.1.1", "2.2.2.2,10.0.0.9"], "2.2.2.2"),
            (&["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
            (&["1.1.1.1, nonsense, 10.0.0.9"], "10.0.0.9"),
            (&["1.1.1.1, 2.2.2.2:5678"], "2.2.2.2"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["[2001:db8::1], fd00::7"], "2001:db8::1"),
            (&["::ffff:2.2.2.2"], "2.2.2.2"),
            (&["", " , "], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client(trusted, "10.0.0.1", lines), expected, "{lines:?}");
        }
        assert_eq!(client(trusted, "::ffff:10.0.0.1", &["2.2.2.2"]), "2.2.2.2");
    }

    #[test]
    fn an_ipv6_client_is_identified_by_its_network() {
        let client = |text: &str| ClientAddress(text.parse().expect("an address")).client();
        assert_eq!(client("2001:db8:1:2:3::4"), client("2001:db8:1:2::"));
        assert_ne!(client("2001:db8:1:3::"), client("2001:db8:1:2::"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn invalid_proxy_lists_are_rejected() {
        for text in [
            "10.0.0.0/33",
            "proxy.internal",
            "*",
            "10.0.0.0/8;10.1.0.0/16",
        ] {
            text.parse::<TrustedProxies>().expect_err(text);
        }
        assert_eq!(" , ".parse(), Ok(TrustedProxies::default()));
    }
}
