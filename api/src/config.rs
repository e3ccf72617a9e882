//! What an operator sets, all of it in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use runcast_common::config::byte_size::ByteSize;
use runcast_common::config::environment::Environment;
use runcast_common::config::{
    ConfigError, Env, HumanDuration, PostgresUrl, RedisUrl, optional, redis_url, required,
};
use runcast_common::presence::heartbeat::NEWS_AFTER;
use runcast_common::presence::liveness::LivenessThresholds;
use runcast_common::protocol::keys::Keys;
use url::Url;

use runcast_access::client_ip::TrustedProxies;
use runcast_access::oidc::settings::OidcSettings;
use runcast_access::rate_limit::policy::LimitConfig;
use runcast_access::session::lifetime;
use runcast_gateway::middleware::cors::Origins;
use runcast_gateway::server::tls::Tls;
use runcast_history::archive::object_store::ArchiveStore;
use runcast_persister::MemoryBudget;
use runcast_webhooks::delivery;
use runcast_worker::age::Age;
use runcast_worker::retention::{self, Retention};

/// Where the gateway listens if nothing else is said: reachable from this machine only.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7070);

/// When sealed runs go into the archive if nothing is said.
const ARCHIVE_AFTER: Age = Age::days(30);

/// A session is moved forward once a minute; one that lives shorter would end under the hands of whoever uses it.
const SHORTEST_SESSION: Duration = Duration::from_secs(120);

/// Longer than a phone is without network in a tunnel, shorter than what a user takes for a dead page.
const DEFAULT_VIEWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest delay of a gateway's end: Kubernetes kills after 30 s, and streams take a while to close.
const MOST_DRAIN_DELAY: Duration = Duration::from_secs(15);

/// Settings of every service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `REDIS_URL`.
    pub redis: RedisUrl,
    /// `DATABASE_URL`.
    pub postgres: PostgresUrl,
    /// `RUNCAST_PUBLISH_REDIS_URL`: what agents are told; it should allow appending only.
    pub publish_redis: Option<RedisUrl>,
    /// `RUNCAST_KEY_PREFIX`.
    pub keys: Keys,
    /// `RUNCAST_LISTEN`.
    pub listen: SocketAddr,
    /// `RUNCAST_METRICS_LISTEN`: where `/metrics` is served, if at all.
    pub metrics_listen: Option<SocketAddr>,
    /// `RUNCAST_REDIS_BUDGET`: the memory that Redis may use before the biggest runs may not grow.
    pub redis_budget: MemoryBudget,
    /// `RUNCAST_PUBLIC_URL`: how browsers reach the gateway.
    pub public_url: Option<Url>,
    /// `RUNCAST_ENV`.
    pub environment: Environment,
    /// `RUNCAST_RETENTION`, and `RUNCAST_RETENTION_RULES` for labels: how long runs are kept. `RUNCAST_AUDIT_RETENTION`:
    /// how long the log of changes of access is.
    pub retention: Retention,
    /// `RUNCAST_MEMORY_LIMIT`: resident memory at which a gateway closes viewers.
    pub memory_limit: Option<ByteSize>,
    /// `RUNCAST_DRAIN_DELAY`: time between the end of a gateway's readiness and that of its streams.
    pub drain_delay: Duration,
    /// `RUNCAST_VIEWER_TIMEOUT`: a viewer who takes nothing for so long is closed.
    pub viewer_timeout: Duration,
    /// `RUNCAST_LIMITS`: how much one may ask of the gateway.
    pub limits: LimitConfig,
    /// `RUNCAST_TRUSTED_PROXIES`: who is believed for whom it asks.
    pub proxies: TrustedProxies,
    /// `RUNCAST_SESSION_LIFE`, or `RUNCAST_SESSION_IDLE` where that is shorter: how long a session lives without a request.
    pub session_life: Duration,
    /// `RUNCAST_OIDC_...`: an issuer that says who signs in, if there is one.
    pub oidc: Option<OidcSettings>,
    /// `RUNCAST_CORS_ORIGINS`: whose pages may ask the gateway besides its own.
    pub cors: Origins,
    /// `RUNCAST_TLS_CERT` and `RUNCAST_TLS_KEY`.
    pub tls: Option<Tls>,
    /// `RUNCAST_STALE_AFTER` and `RUNCAST_LOST_AFTER`: how long a silence of an agent means what.
    pub silence: LivenessThresholds,
    /// `RUNCAST_WEBHOOK_...`: where and how long webhooks are sent to.
    pub webhooks: delivery::RetryPolicy,
    /// `RUNCAST_ARCHIVE`: where old runs go, if anywhere.
    pub archive: Option<ArchiveStore>,
    /// `RUNCAST_ARCHIVE_AFTER`: how old they are then.
    pub archive_after: Age,
}

impl Settings {
    /// Reads all settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the first one that is missing or makes no sense.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let redis = redis_url(env, "REDIS_URL")?.ok_or(ConfigError::Missing {
            name: "REDIS_URL",
            hint: "give the address of Redis, such as redis://host:6379, or start `runcastd dev`",
        })?;
        Self::with_servers(env, redis, database(env)?)
    }

    /// Reads all settings but the addresses of the two servers.
    ///
    /// # Errors
    /// [`ConfigError`] names the first one that makes no sense.
    pub fn with_servers(
        env: &impl Env,
        redis: RedisUrl,
        postgres: PostgresUrl,
    ) -> Result<Self, ConfigError> {
        let environment = optional(env, "RUNCAST_ENV")?.unwrap_or_default();
        let settings = Self {
            redis,
            postgres,
            publish_redis: redis_url(env, "RUNCAST_PUBLISH_REDIS_URL")?,
            keys: key_prefix(env)?,
            listen: optional(env, "RUNCAST_LISTEN")?.unwrap_or(DEFAULT_LISTEN),
            metrics_listen: optional(env, "RUNCAST_METRICS_LISTEN")?,
            redis_budget: optional(env, "RUNCAST_REDIS_BUDGET")?.unwrap_or_default(),
            public_url: public_url(env)?,
            environment,
            memory_limit: optional(env, "RUNCAST_MEMORY_LIMIT")?,
            drain_delay: drain_delay(env)?,
            viewer_timeout: optional(env, "RUNCAST_VIEWER_TIMEOUT")?
                .map_or(DEFAULT_VIEWER_TIMEOUT, |HumanDuration(span)| span),
            limits: optional(env, "RUNCAST_LIMITS")?.unwrap_or_default(),
            proxies: optional(env, "RUNCAST_TRUSTED_PROXIES")?.unwrap_or_default(),
            session_life: session_life(env)?,
            oidc: OidcSettings::from_env(env, environment)?,
            cors: optional(env, "RUNCAST_CORS_ORIGINS")?.unwrap_or_default(),
            tls: Tls::from_env(env)?,
            silence: silence(env)?,
            webhooks: webhook_policy(env)?,
            retention: Retention {
                rules: optional(env, "RUNCAST_RETENTION_RULES")?.unwrap_or_default(),
                otherwise: optional(env, "RUNCAST_RETENTION")?.unwrap_or_default(),
                audit: optional(env, "RUNCAST_AUDIT_RETENTION")?.unwrap_or(retention::AUDIT),
            },
            archive: ArchiveStore::from_env(env)?,
            archive_after: optional(env, "RUNCAST_ARCHIVE_AFTER")?.unwrap_or(ARCHIVE_AFTER),
        };
        if settings.archive.is_none() && env.get("RUNCAST_ARCHIVE_AFTER").is_some() {
            return Err(ConfigError::Missing {
                name: "RUNCAST_ARCHIVE",
                hint: "RUNCAST_ARCHIVE_AFTER is set, and nobody says where runs are to go: file:///folder or \
                       s3://bucket/prefix",
            });
        }
        Ok(settings)
    }

    /// What agents are told to publish to.
    ///
    /// # Errors
    /// In production it must be set: the server's own address would hand every agent all rights.
    pub fn publish_redis(&self) -> Result<&RedisUrl, ConfigError> {
        match (&self.publish_redis, self.environment) {
            (Some(url), _) => Ok(url),
            (None, Environment::Development) => Ok(&self.redis),
            (None, Environment::Production) => Err(ConfigError::Missing {
                name: "RUNCAST_PUBLISH_REDIS_URL",
                hint: "give the address of Redis with the credentials of a user that may only append \
                       (`runcastd acl` prints the rules); it is handed to every agent",
            }),
        }
    }
}

/// `DATABASE_URL` alone, for what needs nothing else.
///
/// # Errors
/// [`ConfigError`] if it is missing or makes no sense.
pub fn database(env: &impl Env) -> Result<PostgresUrl, ConfigError> {
    required(
        env,
        "DATABASE_URL",
        "give the address of Postgres, such as postgres://user:password@host/runcast, or start `runcastd dev`",
    )
}

/// Where `runcastd dev` keeps its data: `RUNCAST_DATA_DIR`, else `.local`.
#[must_use]
pub fn data_dir(env: &impl Env) -> PathBuf {
    env.get("RUNCAST_DATA_DIR")
        .map_or_else(|| PathBuf::from(".local"), PathBuf::from)
}

/// `RUNCAST_KEY_PREFIX`: in front of every Redis key, for installations that share a server.
///
/// # Errors
/// If it holds characters that mean something in a key.
pub fn key_prefix(env: &impl Env) -> Result<Keys, ConfigError> {
    let prefix = env.get("RUNCAST_KEY_PREFIX").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.bytes().all(plain) && prefix.len() <= 64 {
        return Ok(Keys::new(&prefix));
    }
    Err(ConfigError::Invalid {
        name: "RUNCAST_KEY_PREFIX",
        reason: "expected at most 64 letters, digits, and - _ . :".into(),
    })
}

/// What `RUNCAST_STALE_AFTER` and `RUNCAST_LOST_AFTER` say.
fn drain_delay(env: &impl Env) -> Result<Duration, ConfigError> {
    let name = "RUNCAST_DRAIN_DELAY";
    let delay = optional(env, name)?.map_or(Duration::ZERO, |HumanDuration(span)| span);
    if delay > MOST_DRAIN_DELAY {
        let reason = format!("expected {} at most", HumanDuration(MOST_DRAIN_DELAY));
        return Err(ConfigError::Invalid { name, reason });
    }
    Ok(delay)
}

/// What `RUNCAST_SESSION_LIFE` and `RUNCAST_SESSION_IDLE` say.
fn session_life(env: &impl Env) -> Result<Duration, ConfigError> {
    let (life, idle) = ("RUNCAST_SESSION_LIFE", "RUNCAST_SESSION_IDLE");
    let span = |name| -> Result<_, ConfigError> {
        let given = optional(env, name)?.map(|HumanDuration(span)| span);
        match given {
            Some(given) if !(SHORTEST_SESSION..=lifetime::MOST_LIFE).contains(&given) => {
                let (least, most) = (
                    HumanDuration(SHORTEST_SESSION),
                    HumanDuration(lifetime::MOST_LIFE),
                );
                let reason = format!("expected from {least} to {most}");
                Err(ConfigError::Invalid { name, reason })
            }
            given => Ok(given),
        }
    };
    let life = span(life)?.unwrap_or(lifetime::LIFE);
    match span(idle)? {
        Some(given) if given > life => Err(ConfigError::Invalid {
            name: idle,
            reason: format!(
                "expected no more than RUNCAST_SESSION_LIFE, which is {}",
                HumanDuration(life)
            ),
        }),
        given => Ok(given.unwrap_or(life)),
    }
}

fn silence(env: &impl Env) -> Result<LivenessThresholds, ConfigError> {
    let LivenessThresholds { stale, lost } = LivenessThresholds::default();
    let (of_stale, of_lost) = ("RUNCAST_STALE_AFTER", "RUNCAST_LOST_AFTER");
    let silence = LivenessThresholds {
        stale: optional(env, of_stale)?.map_or(stale, |HumanDuration(span)| span),
        lost: optional(env, of_lost)?.map_or(lost, |HumanDuration(span)| span),
    };
    let refused = |name, reason: String| Err(ConfigError::Invalid { name, reason });
    if silence.stale < NEWS_AFTER {
        let least = HumanDuration(NEWS_AFTER);
        return refused(
            of_stale,
            format!("agents give a sign of life every 5 s: {least} at least"),
        );
    }
    if silence.lost <= silence.stale {
        return refused(
            of_lost,
            format!(
                "expected more than {of_stale}, which is {}",
                HumanDuration(silence.stale)
            ),
        );
    }
    Ok(silence)
}

/// What `RUNCAST_WEBHOOK_...` says.
///
/// # Errors
/// [`ConfigError`] names the first one that makes no sense.
pub fn webhook_policy(env: &impl Env) -> Result<delivery::RetryPolicy, ConfigError> {
    let default = delivery::RetryPolicy::default();
    let span =
        |name, otherwise| Ok(optional(env, name)?.map_or(otherwise, |HumanDuration(span)| span));
    Ok(delivery::RetryPolicy {
        allowed: optional(env, "RUNCAST_WEBHOOK_ALLOW")?.unwrap_or_default(),
        timeout: span("RUNCAST_WEBHOOK_TIMEOUT", default.timeout)?,
        first_retry: span("RUNCAST_WEBHOOK_FIRST_RETRY", default.first_retry)?,
        give_up: span("RUNCAST_WEBHOOK_GIVE_UP", default.give_up)?,
        keep: span("RUNCAST_WEBHOOK_LOG", default.keep)?,
    })
}

fn public_url(env: &impl Env) -> Result<Option<Url>, ConfigError> {
    let url: Option<Url> = optional(env, "RUNCAST_PUBLIC_URL")?;
    match url {
        Some(url) if !matches!(url.scheme(), "http" | "https") || url.path() != "/" => {
            Err(ConfigError::Invalid {
                name: "RUNCAST_PUBLIC_URL",
                reason: "expected an origin such as https://runcast.example.com".into(),
            })
        }
        url => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn env<'a>(more: &[(&'a str, &'a str)]) -> HashMap<&'a str, &'a str> {
        let mut env = HashMap::from([
            ("REDIS_URL", "redis://localhost"),
            ("DATABASE_URL", "postgres://localhost/runcast"),
        ]);
        env.extend(more.iter().copied());
        env
    }

    #[test]
    fn two_addresses_are_enough() {
        let settings = Settings::from_env(&env(&[])).expect("settings");
        assert_eq!(settings.listen, DEFAULT_LISTEN);
        assert_eq!(settings.environment, Environment::Development);
        settings.publish_redis().expect("the same Redis");
    }

    #[test]
    fn production_does_not_hand_out_its_own_credentials() {
        let production = ("RUNCAST_ENV", "production");
        let settings = Settings::from_env(&env(&[production])).expect("settings");
        let error = settings.publish_redis().expect_err("missing").to_string();
        assert!(
            error.starts_with("RUNCAST_PUBLISH_REDIS_URL is not set"),
            "{error}"
        );
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (name, value) in [
            ("REDIS_URL", "localhost"),
            ("REDIS_URL", "redis+sentinel://without-a-service:26379"),
            ("REDIS_URL", "redis+cluster://host/1"),
            ("RUNCAST_PUBLISH_REDIS_URL", "redis+ring://host"),
            ("RUNCAST_REDIS_CA", "/there/is/no/such/file.pem"),
            ("DATABASE_URL", "redis://localhost"),
            ("RUNCAST_LISTEN", "here"),
            ("RUNCAST_METRICS_LISTEN", "9464"),
            ("RUNCAST_REDIS_BUDGET", "half"),
            ("RUNCAST_ENV", "staging"),
            ("RUNCAST_RETENTION", "90"),
            ("RUNCAST_AUDIT_RETENTION", "1y"),
            ("RUNCAST_MEMORY_LIMIT", "1GB"),
            ("RUNCAST_DRAIN_DELAY", "1m"),
            ("RUNCAST_VIEWER_TIMEOUT", "30"),
            ("RUNCAST_LIMITS", "write=100"),
            ("RUNCAST_TRUSTED_PROXIES", "10.0.0.0/33"),
            ("RUNCAST_SESSION_LIFE", "1s"),
            ("RUNCAST_SESSION_LIFE", "60d"),
            ("RUNCAST_SESSION_IDLE", "2d"),
            ("RUNCAST_CORS_ORIGINS", "*"),
            ("RUNCAST_CORS_ORIGINS", "https://a.example/b"),
            ("RUNCAST_STALE_AFTER", "5s"),
            ("RUNCAST_LOST_AFTER", "15s"),
            ("RUNCAST_WEBHOOK_ALLOW", "10.0.0.0/33"),
            ("RUNCAST_WEBHOOK_TIMEOUT", "10"),
            ("RUNCAST_RETENTION_RULES", "project=search"),
            ("RUNCAST_ARCHIVE", "/var/archive"),
            ("RUNCAST_ARCHIVE", "file:///there/is/no/such/folder"),
            ("RUNCAST_ARCHIVE", "s3://user:password@bucket/prefix"),
            ("RUNCAST_ARCHIVE_AFTER", "soon"),
            ("RUNCAST_KEY_PREFIX", "{x}"),
            ("RUNCAST_PUBLIC_URL", "ftp://host"),
            ("RUNCAST_PUBLIC_URL", "https://host/below"),
        ] {
            let error = Settings::from_env(&env(&[(name, value)]))
                .expect_err(name)
                .to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
