//! Where Redis is: one server, the master of a Sentinel service, or a cluster; each with or without TLS.
//!
//! | address | what |
//! |---|---|
//! | `redis://[user:password@]host[:6379][/db]` | one server; also `redis+unix://` with a path |
//! | `redis+sentinel://[user:password@]host[:26379],.../service[/db]` | the master of a service, asked of sentinels |
//! | `redis+cluster://[user:password@]host[:6379],...` | a cluster, whose other nodes are found from these |
//!
//! `rediss` instead of `redis` is TLS, then also to the sentinels. The credentials are those of Redis;
//! sentinels that ask for some get `?sentinel_user=...&sentinel_password=...`. Characters that mean
//! something in an address are written as `%40` and so on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Url, form_urlencoded};

use super::{ConfigError, Env, ServerUrl, optional};

const SINGLE: &str = "redis://user:password@host:6379/0";
const SENTINEL: &str = "redis+sentinel://user:password@host1:26379,host2:26379/service";
const CLUSTER: &str = "redis+cluster://user:password@host1:6379,host2:6379";

/// Where sentinels listen by default.
const SENTINEL_PORT: u16 = 26_379;

/// How Redis is reached. Its credentials are kept out of every print.
#[derive(Clone)]
pub struct RedisUrl {
    secret: SecretString,
    shown: String,
    topology: Topology,
    ca: Option<Ca>,
}

/// What stands behind an address.
#[derive(Clone)]
pub(crate) enum Topology {
    Single(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// How the master is spoken to, wherever it is.
        redis: ConnectionInfo,
    },
    /// Any nodes of it.
    Cluster(Vec<ConnectionInfo>),
}

/// A text that is no address of Redis. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// It is none of the three kinds.
    #[error("expected an address such as {SINGLE}, {SENTINEL} or {CLUSTER} (with TLS: rediss)")]
    Unknown,
    /// A part of it cannot be used.
    #[error("{0}")]
    Part(&'static str),
}

impl RedisUrl {
    /// The address with its credentials, for handing it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Whom to trust, where that is not left to the platform.
    #[must_use]
    pub const fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// The same, trusting these certificates and no others; without TLS nothing changes.
    #[must_use]
    pub fn trusting(mut self, ca: Option<Ca>) -> Self {
        if self.secret.expose_secret().starts_with("rediss") {
            self.ca = ca.or(self.ca);
        }
        self
    }

    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, _) = text.split_once("://").ok_or(InvalidRedisUrl::Unknown)?;
        let (shown, topology) = match scheme {
            "redis" | "rediss" | "redis+unix" | "unix" => single(text)?,
            "redis+sentinel" => Parts::of(text)?.sentinel("redis")?,
            "rediss+sentinel" => Parts::of(text)?.sentinel("rediss")?,
            "redis+cluster" => Parts::of(text)?.cluster("redis")?,
            "rediss+cluster" => Parts::of(text)?.cluster("rediss")?,
            _ => return Err(InvalidRedisUrl::Unknown),
        };
        Ok(Self {
            secret: SecretString::from(text.to_owned()),
            shown,
            topology,
            ca: None,
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn single(text: &str) -> Result<(String, Topology), InvalidRedisUrl> {
    let schemes = ["redis", "rediss", "redis+unix", "unix"];
    let url =
        ServerUrl::parse(text, &schemes, SINGLE).map_err(|_unusable| InvalidRedisUrl::Unknown)?;
    let info = text
        .into_connection_info()
        .map_err(|_unusable| InvalidRedisUrl::Unknown)?;
    Ok((url.to_string(), Topology::Single(info)))
}

/// An address with several hosts, taken apart.
struct Parts<'a> {
    scheme: &'a str,
    /// With its `@`, if there is any.
    user: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl::Unknown)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Ok(Self {
            scheme,
            user,
            hosts,
            path: path.trim_end_matches('/'),
            query,
        })
    }

    fn shown(&self) -> String {
        let user = match self.user.split_once(':') {
            Some((name, _)) => format!("{name}:***@"),
            None => self.user.to_owned(),
        };
        let Self {
            scheme,
            hosts,
            path,
            query,
            ..
        } = self;
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
        let query = if query.is_empty() { "" } else { "?***" };
        format!("{scheme}://{user}{hosts}{path}{query}")
    }

    fn infos(
        &self,
        scheme: &str,
        port: Option<u16>,
    ) -> Result<Vec<ConnectionInfo>, InvalidRedisUrl> {
        let hosts = self.hosts.split(',').map(str::trim);
        hosts
            .map(|host| info(scheme, self.user, host, port))
            .collect()
    }

    fn sentinel(&self, scheme: &str) -> Result<(String, Topology), InvalidRedisUrl> {
        let infos = self.infos(scheme, Some(SENTINEL_PORT))?;
        let (service, db) = self.path.split_once('/').unwrap_or((self.path, "0"));
        if service.is_empty() {
            return Err(InvalidRedisUrl::Part(
                "the name of the service is missing behind the sentinels, such as \
                 redis+sentinel://host1:26379,host2:26379/mymaster",
            ));
        }
        let db = db.parse().map_err(|_not_a_number| {
            InvalidRedisUrl::Part(
                "behind the name of the service only the number of a database may follow",
            )
        })?;
        let mut own = RedisConnectionInfo::default();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            own = match &*name {
                "sentinel_user" => own.set_username(value),
                "sentinel_password" => own.set_password(value),
                _ => {
                    return Err(InvalidRedisUrl::Part(
                        "an option is not known: behind ? only sentinel_user and sentinel_password may stand",
                    ));
                }
            };
        }
        let first = infos.first().ok_or(InvalidRedisUrl::Unknown)?;
        let redis = first.redis_settings().clone().set_db(db);
        let topology = Topology::Sentinel {
            redis: first.clone().set_redis_settings(redis),
            service: service.to_owned(),
            sentinels: infos
                .into_iter()
                .map(|info| info.set_redis_settings(own.clone()))
                .collect(),
        };
        Ok((self.shown(), topology))
    }

    fn cluster(&self, scheme: &str) -> Result<(String, Topology), InvalidRedisUrl> {
        if !matches!(self.path, "" | "0") || !self.query.is_empty() {
            return Err(InvalidRedisUrl::Part(
                "nothing may follow the hosts of a cluster: it has no numbered databases and no options",
            ));
        }
        Ok((self.shown(), Topology::Cluster(self.infos(scheme, None)?)))
    }
}

fn info(
    scheme: &str,
    user: &str,
    host: &str,
    port: Option<u16>,
) -> Result<ConnectionInfo, InvalidRedisUrl> {
    const NOT_A_HOST: InvalidRedisUrl = InvalidRedisUrl::Part(
        "one of the hosts, or the credentials before them, cannot be read: expected \
         user:password@host1:port,host2:port, with special characters as %40 and so on",
    );
    let url = Url::parse(&format!("{scheme}://{user}{host}")).map_err(|_unusable| NOT_A_HOST)?;
    let is_plain = url.fragment().is_none() && url.query().is_none() && url.path().is_empty();
    if !is_plain || host.is_empty() {
        return Err(NOT_A_HOST);
    }
    let has_port = url.port().is_some();
    let info = url.into_connection_info().map_err(|_unusable| NOT_A_HOST)?;
    let Some(port) = port.filter(|_| !has_port) else {
        return Ok(info);
    };
    let addr = match info.addr().clone() {
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(host, port),
        ConnectionAddr::TcpTls {
            host,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure,
            tls_params,
        },
        other => other,
    };
    Ok(info.set_addr(addr))
}

/// Certificates of authorities, as PEM. No secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca(Arc<str>);

impl Ca {
    /// The certificates, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ca {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate =
                certificate.map_err(|_unusable| "it holds a certificate that is damaged")?;
            roots
                .add(certificate)
                .map_err(|_unusable| "it holds a certificate that no authority can have")?;
        }
        if roots.is_empty() {
            return Err("it holds no certificate: expected -----BEGIN CERTIFICATE-----");
        }
        Ok(Self(text.into()))
    }
}

/// `RUNCAST_REDIS_CA`: the file with the certificates of the authorities that sign for Redis, instead of
/// the platform's.
///
/// # Errors
/// [`ConfigError::Invalid`] if it cannot be read or holds none.
pub fn redis_ca(env: &impl Env) -> Result<Option<Ca>, ConfigError> {
    let name = "RUNCAST_REDIS_CA";
    let Some(path) = env.get(name) else {
        return Ok(None);
    };
    let invalid = |reason: String| ConfigError::Invalid { name, reason };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| invalid(format!("{path} cannot be read: {error}")))?;
    let ca = text
        .parse()
        .map_err(|why| invalid(format!("{path}: {why}")))?;
    Ok(Some(ca))
}

/// An address of Redis, which trusts what [`redis_ca`] says.
///
/// # Errors
/// [`ConfigError::Invalid`] if it, or `RUNCAST_REDIS_CA`, makes no sense.
pub fn redis_url(env: &impl Env, name: &'static str) -> Result<Option<RedisUrl>, ConfigError> {
    let url: Option<RedisUrl> = optional(env, name)?;
    let ca = redis_ca(env)?;
    Ok(url.map(|url| url.trusting(ca)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn places(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn sentinels_name_a_service_and_keep_their_own_credentials() {
        let url = parse(
            "rediss+sentinel://me:s3%40cret@one,two:1234,[::1]/mymaster/3?sentinel_password=other",
        );
        let Topology::Sentinel {
            sentinels,
            service,
            redis,
        } = url.topology()
        else {
            panic!("{url}");
        };
        assert_eq!(places(sentinels), ["one:26379", "two:1234", "::1:26379"]);
        assert_eq!(service, "mymaster");
        let settings = redis.redis_settings();
        assert_eq!(
            (settings.username(), settings.password()),
            (Some("me"), Some("s3@cret"))
        );
        assert_eq!(settings.db(), 3);
        let asked = sentinels[0].redis_settings();
        assert_eq!((asked.username(), asked.password()), (None, Some("other")));
        assert!(matches!(sentinels[0].addr(), ConnectionAddr::TcpTls { .. }));
        let shown = "rediss+sentinel://me:***@one,two:1234,[::1]/mymaster/3?***";
        assert_eq!(url.to_string(), shown);
    }

    #[test]
    fn a_cluster_is_known_by_some_of_its_nodes() {
        let url = parse("redis+cluster://me:s3cret@one,two:7001");
        let Topology::Cluster(seeds) = url.topology() else {
            panic!("{url}");
        };
        assert_eq!(places(seeds), ["one:6379", "two:7001"]);
        assert_eq!(seeds[1].redis_settings().password(), Some("s3cret"));
        assert_eq!(format!("{url:?}"), "redis+cluster://me:***@one,two:7001");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_repeating_it() {
        for text in [
            "s3cret",
            "http://me:s3cret@host",
            "redis://me:s3cret@host/zero",
            "redis+sentinel://me:s3cret@one:26379",
            "redis+sentinel://me:s3cret@one:26379/",
            "redis+sentinel://me:s3cret@one:26379/service/first",
            "redis+sentinel://me:s3cret@one:26379/service?password=s3cret",
            "redis+sentinel://me:s3cret@one:port/service",
            "redis+cluster://me:s3cret@one:6379/1",
            "redis+cluster://me:s3cret@one,,two",
            "redis+cluster://me:s3cret@",
        ] {
            let error = text.parse::<RedisUrl>().expect_err(text).to_string();
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }
}
