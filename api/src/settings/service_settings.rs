//! The settings of the services, read from the environment into the types that they use.
//!
//! Each value comes through its entry in [`super::table`]. What no single value decides is checked
//! here: bounds, and settings that need one another. The first wrong setting ends the program with
//! an error that names it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use runcast_access::client_ip::TrustedProxies;
use runcast_access::oidc::settings::OidcSettings;
use runcast_access::rate_limit::policy::LimitConfig;
use runcast_access::session::lifetime;
use runcast_common::config::byte_size::ByteSize;
use runcast_common::config::environment::Environment;
use runcast_common::config::{
    ConfigError, Env, HumanDuration, PostgresUrl, RedisUrl, redis_url, required,
};
use runcast_common::presence::heartbeat::RETURN_AFTER;
use runcast_common::presence::liveness::LivenessThresholds;
use runcast_common::protocol::keys::Keys;
use runcast_gateway::middleware::audit_reads::AuditReads;
use runcast_gateway::middleware::cors::Origins;
use runcast_gateway::server::tls::Tls;
use runcast_history::archive::object_store::ArchiveStore;
use runcast_persister::MemoryBudget;
use runcast_webhooks::settings::WebhookSettings;
use runcast_worker::age::Age;
use runcast_worker::retention_rules::Retention;
use url::Url;

use super::plaintext::AllowedPlaintext;
use super::setting::Setting;
use super::table::{gateway, servers, worker};

/// Shortest life of a session. Requests extend a session once a minute; a shorter life would end
/// sessions that are in use.
const MIN_SESSION_LIFE: Duration = Duration::from_secs(120);

/// Longest delay of a gateway's end: Kubernetes kills after 30 s, and streams take a while to
/// close.
const MAX_DRAIN_DELAY: Duration = Duration::from_secs(15);

/// Longest key prefix.
const MAX_KEY_PREFIX_BYTES: usize = 64;

/// Settings of every service. [`super::table`] says what each is for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `REDIS_URL`.
    pub redis: RedisUrl,
    /// `DATABASE_URL`.
    pub postgres: PostgresUrl,
    /// `RUNCAST_PUBLISH_REDIS_URL`.
    pub publish_redis: Option<RedisUrl>,
    /// `RUNCAST_KEY_PREFIX`.
    pub keys: Keys,
    /// `RUNCAST_LISTEN`.
    pub listen: SocketAddr,
    /// `RUNCAST_METRICS_LISTEN`.
    pub metrics_listen: Option<SocketAddr>,
    /// `RUNCAST_REDIS_BUDGET`.
    pub redis_budget: MemoryBudget,
    /// `RUNCAST_PUBLIC_URL`.
    pub public_url: Option<Url>,
    /// `RUNCAST_ENV`.
    pub environment: Environment,
    /// `RUNCAST_ALLOW_PLAINTEXT`.
    pub allowed_plaintext: AllowedPlaintext,
    /// `RUNCAST_RETENTION`, `RUNCAST_RETENTION_RULES` and `RUNCAST_AUDIT_RETENTION`.
    pub retention: Retention,
    /// `RUNCAST_MEMORY_LIMIT`.
    pub memory_limit: Option<ByteSize>,
    /// `RUNCAST_DRAIN_DELAY`.
    pub drain_delay: Duration,
    /// `RUNCAST_VIEWER_TIMEOUT`.
    pub viewer_timeout: Duration,
    /// `RUNCAST_LIMITS`.
    pub limits: LimitConfig,
    /// `RUNCAST_AUDIT_READS`.
    pub audit_reads: AuditReads,
    /// `RUNCAST_TRUSTED_PROXIES`.
    pub proxies: TrustedProxies,
    /// `RUNCAST_SESSION_LIFE`, or `RUNCAST_SESSION_IDLE` where that is given.
    pub session_life: Duration,
    /// `RUNCAST_OIDC_...`.
    pub oidc: Option<OidcSettings>,
    /// `RUNCAST_CORS_ORIGINS`.
    pub cors: Origins,
    /// `RUNCAST_TLS_CERT` and `RUNCAST_TLS_KEY`.
    pub tls: Option<Tls>,
    /// `RUNCAST_STALE_AFTER` and `RUNCAST_LOST_AFTER`.
    pub liveness: LivenessThresholds,
    /// `RUNCAST_WEBHOOK_...`.
    pub webhooks: WebhookSettings,
    /// `RUNCAST_ARCHIVE`.
    pub archive: Option<ArchiveStore>,
    /// `RUNCAST_ARCHIVE_AFTER`.
    pub archive_after: Age,
}

impl Settings {
    /// Reads all settings. The error names the first that is missing or not valid.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let redis = redis_url(env, servers::REDIS_URL.entry.name)?.ok_or(ConfigError::Missing {
            name: servers::REDIS_URL.entry.name,
            hint: "give the address of Redis, such as redis://host:6379, or start `runcastd dev`",
        })?;
        Self::with_servers(env, redis, database(env)?)
    }

    /// Reads all settings but the addresses of the two servers.
    pub fn with_servers(
        env: &impl Env,
        redis: RedisUrl,
        postgres: PostgresUrl,
    ) -> Result<Self, ConfigError> {
        let environment = servers::ENV.given_or_default(env)?;
        let settings = Self {
            redis,
            postgres,
            publish_redis: redis_url(env, servers::PUBLISH_REDIS_URL.entry.name)?,
            keys: key_prefix(env)?,
            listen: gateway::LISTEN.given_or_default(env)?,
            metrics_listen: servers::METRICS_LISTEN.given(env)?,
            redis_budget: servers::REDIS_BUDGET.given(env)?.unwrap_or_default(),
            public_url: public_url(env)?,
            environment,
            allowed_plaintext: servers::ALLOW_PLAINTEXT.given(env)?.unwrap_or_default(),
            memory_limit: gateway::MEMORY_LIMIT.given(env)?,
            drain_delay: drain_delay(env)?,
            viewer_timeout: duration(env, &gateway::VIEWER_TIMEOUT)?,
            limits: gateway::LIMITS.given_or_default(env)?,
            audit_reads: gateway::AUDIT_READS.given_or_default(env)?,
            proxies: gateway::TRUSTED_PROXIES.given(env)?.unwrap_or_default(),
            session_life: session_life(env)?,
            oidc: OidcSettings::from_env(env, environment)?,
            cors: gateway::CORS_ORIGINS.given(env)?.unwrap_or_default(),
            tls: Tls::from_env(env)?,
            liveness: liveness(env)?,
            webhooks: webhook_settings(env)?,
            retention: Retention {
                rules: worker::RETENTION_RULES.given(env)?.unwrap_or_default(),
                otherwise: worker::RETENTION.given_or_default(env)?,
                audit: worker::AUDIT_RETENTION.given_or_default(env)?,
            },
            archive: ArchiveStore::from_env(env)?,
            archive_after: worker::ARCHIVE_AFTER.given_or_default(env)?,
        };
        if settings.archive.is_none() && worker::ARCHIVE_AFTER.given(env)?.is_some() {
            return Err(ConfigError::Missing {
                name: worker::ARCHIVE.entry.name,
                hint: "RUNCAST_ARCHIVE_AFTER is set, so say where runs are to go: file:///folder \
                       or s3://bucket/prefix",
            });
        }
        Ok(settings)
    }
}

/// `DATABASE_URL` alone, for commands that need nothing else.
pub fn database(env: &impl Env) -> Result<PostgresUrl, ConfigError> {
    required(
        env,
        servers::DATABASE_URL.entry.name,
        "give the address of Postgres, such as postgres://user:password@host/runcast, or start `runcastd dev`",
    )
}

/// `RUNCAST_DATA_DIR`.
pub fn data_dir(env: &impl Env) -> Result<PathBuf, ConfigError> {
    servers::DATA_DIR.given_or_default(env).map(PathBuf::from)
}

/// `RUNCAST_KEY_PREFIX`. Characters that mean something in a key are refused.
pub fn key_prefix(env: &impl Env) -> Result<Keys, ConfigError> {
    let prefix = servers::KEY_PREFIX.given(env)?.unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.bytes().all(plain) && prefix.len() <= MAX_KEY_PREFIX_BYTES {
        return Ok(Keys::new(&prefix));
    }
    let reason = format!("expected at most {MAX_KEY_PREFIX_BYTES} letters, digits, and - _ . :");
    Err(servers::KEY_PREFIX.invalid(reason))
}

/// `RUNCAST_WEBHOOK_...`.
pub fn webhook_settings(env: &impl Env) -> Result<WebhookSettings, ConfigError> {
    Ok(WebhookSettings {
        allowed: worker::WEBHOOK_ALLOW.given(env)?.unwrap_or_default(),
        timeout: duration(env, &worker::WEBHOOK_TIMEOUT)?,
        first_retry: duration(env, &worker::WEBHOOK_FIRST_RETRY)?,
        give_up: duration(env, &worker::WEBHOOK_GIVE_UP)?,
        keep: duration(env, &worker::WEBHOOK_LOG)?,
    })
}

fn duration(env: &impl Env, setting: &Setting<HumanDuration>) -> Result<Duration, ConfigError> {
    let HumanDuration(duration) = setting.given_or_default(env)?;
    Ok(duration)
}

fn drain_delay(env: &impl Env) -> Result<Duration, ConfigError> {
    let given = gateway::DRAIN_DELAY.given(env)?;
    let delay = given.map_or(Duration::ZERO, |HumanDuration(delay)| delay);
    if delay > MAX_DRAIN_DELAY {
        let reason = format!("expected {} at most", HumanDuration(MAX_DRAIN_DELAY));
        return Err(gateway::DRAIN_DELAY.invalid(reason));
    }
    Ok(delay)
}

fn session_life(env: &impl Env) -> Result<Duration, ConfigError> {
    let bounded = |setting: &Setting<HumanDuration>, HumanDuration(given)| {
        if (MIN_SESSION_LIFE..=lifetime::MAX_SESSION_LIFE).contains(&given) {
            return Ok(given);
        }
        let shortest = HumanDuration(MIN_SESSION_LIFE);
        let longest = HumanDuration(lifetime::MAX_SESSION_LIFE);
        Err(setting.invalid(format!("expected from {shortest} to {longest}")))
    };
    let life = gateway::SESSION_LIFE.given_or_default(env)?;
    let life = bounded(&gateway::SESSION_LIFE, life)?;
    let Some(idle) = gateway::SESSION_IDLE.given(env)? else {
        return Ok(life);
    };
    let idle = bounded(&gateway::SESSION_IDLE, idle)?;
    if idle > life {
        return Err(gateway::SESSION_IDLE.invalid(format!(
            "expected no more than RUNCAST_SESSION_LIFE, which is {}",
            HumanDuration(life)
        )));
    }
    Ok(idle)
}

fn liveness(env: &impl Env) -> Result<LivenessThresholds, ConfigError> {
    let thresholds = LivenessThresholds {
        stale: duration(env, &worker::STALE_AFTER)?,
        lost: duration(env, &worker::LOST_AFTER)?,
    };
    if thresholds.stale < RETURN_AFTER {
        return Err(worker::STALE_AFTER.invalid(format!(
            "agents send a heartbeat every 5 s: {} at least",
            HumanDuration(RETURN_AFTER)
        )));
    }
    if thresholds.lost <= thresholds.stale {
        return Err(worker::LOST_AFTER.invalid(format!(
            "expected more than RUNCAST_STALE_AFTER, which is {}",
            HumanDuration(thresholds.stale)
        )));
    }
    Ok(thresholds)
}

fn public_url(env: &impl Env) -> Result<Option<Url>, ConfigError> {
    let url = gateway::PUBLIC_URL.given(env)?;
    match url {
        Some(url) if !matches!(url.scheme(), "http" | "https") || url.path() != "/" => {
            let reason = "expected an origin such as https://runcast.example.com";
            Err(gateway::PUBLIC_URL.invalid(reason))
        }
        url => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use runcast_worker::retention_rules::{self, Keep};

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
    fn the_addresses_of_two_servers_are_enough() {
        let settings = Settings::from_env(&env(&[])).expect("settings");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7070");
        assert_eq!(settings.environment, Environment::Development);
    }

    #[test]
    fn no_address_of_redis_leaves_the_server_unless_it_is_given_for_that() {
        for more in [&[][..], &[("RUNCAST_ENV", "production")]] {
            let settings = Settings::from_env(&env(more)).expect("settings");
            assert!(settings.publish_redis.is_none());
        }
    }

    #[test]
    fn the_table_has_the_defaults_of_the_crates() {
        let settings = Settings::from_env(&env(&[])).expect("settings");
        let webhooks = WebhookSettings::default();
        assert_eq!(settings.limits, LimitConfig::default());
        assert_eq!(settings.session_life, lifetime::DEFAULT_SESSION_LIFE);
        assert_eq!(settings.liveness, LivenessThresholds::default());
        assert_eq!(settings.retention.otherwise, Keep::default());
        assert_eq!(
            settings.retention.audit,
            retention_rules::DEFAULT_AUDIT_RETENTION
        );
        assert_eq!(settings.webhooks.timeout, webhooks.timeout);
        assert_eq!(settings.webhooks.first_retry, webhooks.first_retry);
        assert_eq!(settings.webhooks.give_up, webhooks.give_up);
        assert_eq!(settings.webhooks.keep, webhooks.keep);
        assert_eq!(settings.environment, Environment::default());
        assert_eq!(settings.archive_after, Age::days(30));
        assert_eq!(settings.drain_delay, Duration::ZERO);
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
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
            ("RUNCAST_AUDIT_READS", "yes"),
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
