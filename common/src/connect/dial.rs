//! How one connection is opened: TCP settings, TLS, protocol and deadlines.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion};
use redis::{ErrorKind, RedisError, TlsCertificates};

use super::authorities::Authorities;
use crate::config::Ca;

/// Deadline for opening a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Deadline for opening a discovery connection, and for each reply on it. It is short because other
/// servers can answer the same question.
pub(super) const DISCOVERY_DEADLINE: Duration = Duration::from_secs(1);

/// Idle time before the first TCP keepalive probe, and the time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// For a long-lived connection, whose owner bounds every wait.
pub(super) fn long_lived() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(None)
}

/// For a connection that serves one discovery command.
pub(super) fn discovery() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DISCOVERY_DEADLINE))
        .set_response_timeout(Some(DISCOVERY_DEADLINE))
}

/// The address of a server with the settings, credentials and authorities to connect to it.
#[derive(Clone)]
pub(super) struct Dial {
    info: ConnectionInfo,
    ca: Option<Ca>,
}

impl Dial {
    pub(super) fn new(info: &ConnectionInfo, ca: Option<&Ca>) -> Self {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_INTERVAL)
            .with_interval(KEEPALIVE_INTERVAL);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        // Sharded pub/sub messages arrive as RESP3 pushes.
        let redis = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        Self {
            info: info.clone().set_tcp_settings(tcp).set_redis_settings(redis),
            ca: ca.cloned(),
        }
    }

    /// The same settings for another server.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: None,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self {
            info: self.info.clone().set_addr(addr),
            ca: self.ca.clone(),
        }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.info.addr().to_string()
    }

    pub(super) fn host(&self) -> &str {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    pub(super) fn client(&self) -> Result<Client, RedisError> {
        let root_cert = match (&self.ca, self.info.addr()) {
            (Some(ca), ConnectionAddr::TcpTls { .. }) => Some(ca.pem().as_bytes().to_vec()),
            // By itself the client fails if it cannot read one of the platform's.
            (None, ConnectionAddr::TcpTls { .. }) => {
                let authorities = Authorities::load().map_err(|error| {
                    let kind = ErrorKind::InvalidClientConfig;
                    RedisError::from((kind, "no certificate authorities", error.to_string()))
                })?;
                authorities.replacement()
            }
            _ => None,
        };
        match root_cert {
            Some(_) => {
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert,
                };
                Client::build_with_tls(self.info.clone(), certificates)
            }
            None => Client::open(self.info.clone()),
        }
    }
}

/// Splits `host:port` as servers write it: the host may contain colons, with or without brackets.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_may_contain_colons() {
        assert_eq!(host_and_port("::1:6379"), Some(("::1", 6379)));
        assert_eq!(host_and_port("[::1]:6379"), Some(("::1", 6379)));
        assert_eq!(host_and_port("host:6379"), Some(("host", 6379)));
        assert_eq!(host_and_port("host"), None);
    }
}
