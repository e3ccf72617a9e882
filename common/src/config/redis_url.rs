//! The address of Redis: a single server, the master of a Sentinel service, or a cluster.
//!
//! | address | meaning |
//! |---|---|
//! | `redis://[user:password@]host[:6379][/db]` | single server; `redis+unix://` takes a path |
//! | `redis+sentinel://[user:password@]host[:26379],.../service[/db]` | master of a service |
//! | `redis+cluster://[user:password@]host[:6379],...` | cluster, discovered from these nodes |
//!
//! `rediss` instead of `redis` means TLS, to the sentinels as well. The credentials are those of
//! Redis; where sentinels require their own, add `?sentinel_user=...&sentinel_password=...`.
//! Percent-encode special characters (`%40` for `@`).

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Url, form_urlencoded};

use super::ca::{Ca, redis_ca};
use super::env::{ConfigError, Env, optional};
use super::server_url::ServerUrl;

const SINGLE_EXAMPLE: &str = "redis://user:password@host:6379/0";
const SENTINEL_EXAMPLE: &str = "redis+sentinel://user:password@host1:26379,host2:26379/service";
const CLUSTER_EXAMPLE: &str = "redis+cluster://user:password@host1:6379,host2:6379";

/// Default port of a sentinel.
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// The address of Redis, masked wherever it is printed.
#[derive(Clone)]
pub struct RedisUrl {
    secret: SecretString,
    masked: String,
    topology: Topology,
    ca: Option<Ca>,
}

/// The servers that an address stands for.
#[derive(Clone)]
pub(crate) enum Topology {
    Single(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// Settings for the master; sentinels supply its host.
        redis: ConnectionInfo,
    },
    /// Seed nodes.
    Cluster(Vec<ConnectionInfo>),
}

/// The text is not an address of Redis. The message does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// None of the three kinds of address.
    #[error(
        "expected an address such as {SINGLE_EXAMPLE}, {SENTINEL_EXAMPLE} or {CLUSTER_EXAMPLE} (with TLS: rediss)"
    )]
    Unknown,
    /// One part of the address is wrong.
    #[error("{0}")]
    Part(&'static str),
}

impl RedisUrl {
    /// The address with its credentials, to pass on to agents.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The same address with the credentials of another user.
    #[must_use]
    pub fn with_user(&self, name: &str, password: &str) -> Self {
        let text = self.secret.expose_secret();
        let changed = match self.topology {
            Topology::Single(_) => single_with_user(text, name, password),
            Topology::Sentinel { .. } | Topology::Cluster(_) => {
                Parts::of(text).map(|parts| parts.with_user(name, password))
            }
        };
        // Both only replace one part by text that is encoded.
        let changed = changed.and_then(|text| text.parse::<Self>());
        changed.map_or_else(
            |_impossible| self.clone(),
            |url| url.trusting(self.ca.clone()),
        )
    }

    /// The user and the password of the address, if it has both.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        let settings = match &self.topology {
            Topology::Single(info) | Topology::Sentinel { redis: info, .. } => Some(info),
            Topology::Cluster(seeds) => seeds.first(),
        };
        let settings = settings?.redis_settings();
        settings.username().zip(settings.password())
    }

    /// The authorities to trust instead of those of the platform.
    #[must_use]
    pub const fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// Trusts only these authorities. Has no effect without TLS.
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
        let (masked, topology) = match scheme {
            "redis" | "rediss" | "redis+unix" | "unix" => single(text)?,
            "redis+sentinel" => Parts::of(text)?.sentinel("redis")?,
            "rediss+sentinel" => Parts::of(text)?.sentinel("rediss")?,
            "redis+cluster" => Parts::of(text)?.cluster("redis")?,
            "rediss+cluster" => Parts::of(text)?.cluster("rediss")?,
            _ => return Err(InvalidRedisUrl::Unknown),
        };
        Ok(Self {
            secret: SecretString::from(text.to_owned()),
            masked,
            topology,
            ca: None,
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

fn single(text: &str) -> Result<(String, Topology), InvalidRedisUrl> {
    let schemes = ["redis", "rediss", "redis+unix", "unix"];
    let url = ServerUrl::parse(text, &schemes, SINGLE_EXAMPLE)
        .map_err(|_unusable| InvalidRedisUrl::Unknown)?;
    let info = text
        .into_connection_info()
        .map_err(|_unusable| InvalidRedisUrl::Unknown)?;
    Ok((url.to_string(), Topology::Single(info)))
}

/// The address of a single server with another user: of a socket, it stands in the query.
fn single_with_user(text: &str, name: &str, password: &str) -> Result<String, InvalidRedisUrl> {
    let mut url = Url::parse(text).map_err(|_unusable| InvalidRedisUrl::Unknown)?;
    if url.has_host() {
        let (name, password) = (encoded(name), encoded(password));
        let set = url
            .set_username(&name)
            .and(url.set_password(Some(&password)));
        set.map_err(|()| InvalidRedisUrl::Unknown)?;
        return Ok(url.into());
    }
    let others = url.query_pairs().into_owned();
    let others = others.filter(|(key, _)| !matches!(key.as_str(), "user" | "pass"));
    let others: Vec<(String, String)> = others.collect();
    let mut query = url.query_pairs_mut();
    query.clear().extend_pairs(others);
    query
        .append_pair("user", name)
        .append_pair("pass", password);
    drop(query);
    Ok(url.into())
}

/// Text as a part of an address.
fn encoded(text: &str) -> String {
    // A space becomes `+`, and is in no name or password of ours.
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The parts of an address with several hosts, which the `url` crate cannot parse.
struct Parts<'a> {
    scheme: &'a str,
    /// Includes the `@` if present.
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

    fn with_user(&self, name: &str, password: &str) -> String {
        let Self {
            scheme,
            hosts,
            path,
            query,
            ..
        } = self;
        let mut text = format!("{scheme}://{}:{}@{hosts}", encoded(name), encoded(password));
        for (mark, part) in [('/', path), ('?', query)] {
            if !part.is_empty() {
                text.push(mark);
                text.push_str(part);
            }
        }
        text
    }

    fn masked(&self) -> String {
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
        let infos = self.infos(scheme, Some(DEFAULT_SENTINEL_PORT))?;
        let (service, db) = self.path.split_once('/').unwrap_or((self.path, "0"));
        if service.is_empty() {
            return Err(InvalidRedisUrl::Part(
                "the service name is missing after the sentinels: expected an address such as \
                 redis+sentinel://host1:26379,host2:26379/mymaster",
            ));
        }
        let db = db.parse().map_err(|_not_a_number| {
            InvalidRedisUrl::Part("after the service name, only a database number is allowed")
        })?;
        let mut own = RedisConnectionInfo::default();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            own = match &*name {
                "sentinel_user" => own.set_username(value),
                "sentinel_password" => own.set_password(value),
                _ => {
                    return Err(InvalidRedisUrl::Part(
                        "unknown option: only sentinel_user and sentinel_password are allowed after ?",
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
        Ok((self.masked(), topology))
    }

    fn cluster(&self, scheme: &str) -> Result<(String, Topology), InvalidRedisUrl> {
        if !matches!(self.path, "" | "0") || !self.query.is_empty() {
            return Err(InvalidRedisUrl::Part(
                "remove what follows the hosts: a cluster has no numbered databases and no options",
            ));
        }
        Ok((self.masked(), Topology::Cluster(self.infos(scheme, None)?)))
    }
}

fn info(
    scheme: &str,
    user: &str,
    host: &str,
    port: Option<u16>,
) -> Result<ConnectionInfo, InvalidRedisUrl> {
    const NOT_A_HOST: InvalidRedisUrl = InvalidRedisUrl::Part(
        "one of the hosts or the credentials cannot be parsed: expected \
         user:password@host1:port,host2:port, with special characters percent-encoded, such as %40",
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

/// Reads the address of Redis from the setting `name`, together with [`redis_ca`].
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

    fn addresses(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn sentinel_address_has_a_service_and_separate_sentinel_credentials() {
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
        assert_eq!(addresses(sentinels), ["one:26379", "two:1234", "::1:26379"]);
        assert_eq!(service, "mymaster");
        let settings = redis.redis_settings();
        assert_eq!(
            (settings.username(), settings.password()),
            (Some("me"), Some("s3@cret"))
        );
        assert_eq!(settings.db(), 3);
        let sentinel = sentinels[0].redis_settings();
        let credentials = (sentinel.username(), sentinel.password());
        assert_eq!(credentials, (None, Some("other")));
        assert!(matches!(sentinels[0].addr(), ConnectionAddr::TcpTls { .. }));
        let masked = "rediss+sentinel://me:***@one,two:1234,[::1]/mymaster/3?***";
        assert_eq!(url.to_string(), masked);
    }

    #[test]
    fn cluster_address_lists_seed_nodes() {
        let url = parse("redis+cluster://me:s3cret@one,two:7001");
        let Topology::Cluster(seeds) = url.topology() else {
            panic!("{url}");
        };
        assert_eq!(addresses(seeds), ["one:6379", "two:7001"]);
        assert_eq!(seeds[1].redis_settings().password(), Some("s3cret"));
        assert_eq!(format!("{url:?}"), "redis+cluster://me:***@one,two:7001");
    }

    #[test]
    fn the_user_of_an_address_can_be_changed() {
        let name = "a:b@c/d";
        for (text, expected) in [
            ("redis://host", "redis://a%3Ab%40c%2Fd:p%25w@host"),
            (
                "rediss://x:y@host:1/3",
                "rediss://a%3Ab%40c%2Fd:p%25w@host:1/3",
            ),
            (
                "redis+unix:///run/redis.sock?db=1&user=x&pass=y",
                "redis+unix:///run/redis.sock?db=1&user=a%3Ab%40c%2Fd&pass=p%25w",
            ),
            (
                "redis+sentinel://x:y@one,two:1/main/3?sentinel_user=s",
                "redis+sentinel://a%3Ab%40c%2Fd:p%25w@one,two:1/main/3?sentinel_user=s",
            ),
            (
                "redis+cluster://one,two",
                "redis+cluster://a%3Ab%40c%2Fd:p%25w@one,two",
            ),
        ] {
            let changed = parse(text).with_user(name, "p%w");
            assert_eq!(changed.expose(), expected);
            assert_eq!(changed.credentials(), Some((name, "p%w")));
        }
        assert_eq!(parse("redis://host").credentials(), None);
    }

    #[test]
    fn invalid_address_is_rejected_without_repeating_it() {
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
