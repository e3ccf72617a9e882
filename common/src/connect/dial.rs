//! How one connection is made: TCP settings, TLS, protocol, deadlines.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion};
use redis::{RedisError, TlsCertificates};

use crate::config::Ca;

/// Longest wait for a connection to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Longest wait for a connection to be made, and for each answer on it, when a server is asked where
/// another one is: there are others to ask.
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(1);

/// When the kernel starts to ask a silent peer whether it still lives, and how often it asks.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// For a connection whose owner bounds every wait.
pub(super) fn lasting() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(None)
}

/// For a connection on which one question is asked.
pub(super) fn asking() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ASK_DEADLINE))
        .set_response_timeout(Some(ASK_DEADLINE))
}

/// How servers are spoken to that share credentials and authorities.
#[derive(Clone)]
pub(super) struct Dial {
    info: ConnectionInfo,
    ca: Option<Ca>,
}

impl Dial {
    pub(super) fn new(info: &ConnectionInfo, ca: Option<&Ca>) -> Self {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
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

    /// The same for another server.
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

    /// Where it is.
    pub(super) fn place(&self) -> String {
        self.info.addr().to_string()
    }

    /// The host alone.
    pub(super) fn host(&self) -> &str {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    /// What connects.
    pub(super) fn client(&self) -> Result<Client, RedisError> {
        match (&self.ca, self.info.addr()) {
            (Some(ca), ConnectionAddr::TcpTls { .. }) => {
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(ca.pem().as_bytes().to_vec()),
                };
                Client::build_with_tls(self.info.clone(), certificates)
            }
            _ => Client::open(self.info.clone()),
        }
    }
}

/// Takes `host:port` apart, as servers write it: the host may hold colons, and be in brackets or not.
pub(super) fn host_and_port(place: &str) -> Option<(&str, u16)> {
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}
