//! Configuration comes from the environment, through a trait so that tests need not touch their own
//! process; secrets are of types that cannot print themselves.
//!
//! Every setting is read by name and every error names the setting, what is wrong with it and what
//! would be right, never its value where that could be a secret.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub mod byte_size;
mod duration;
pub mod environment;
mod redis_url;

pub use self::duration::{HumanDuration, InvalidDuration};
pub(crate) use self::redis_url::Topology;
pub use self::redis_url::{Ca, InvalidRedisUrl, RedisUrl, redis_ca, redis_url};

/// Where settings come from.
pub trait Env {
    /// The value of a setting; an empty one counts as absent.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Env for HashMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name)
            .filter(|value| !value.is_empty())
            .map(|value| (*value).to_owned())
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It must be given and is not.
    #[error("{name} is not set: {hint}")]
    Missing {
        /// Name of the setting.
        name: &'static str,
        /// What to set it to.
        hint: &'static str,
    },
    /// It is given and makes no sense.
    #[error("{name} is not valid: {reason}")]
    Invalid {
        /// Name of the setting.
        name: &'static str,
        /// What is wrong, without the value where it could be secret.
        reason: String,
    },
}

/// Reads an optional setting of any parsable type.
///
/// # Errors
/// [`ConfigError::Invalid`] if it is given and cannot be parsed.
pub fn optional<T>(env: &impl Env, name: &'static str) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err: fmt::Display>,
{
    env.get(name)
        .map(|text| {
            text.parse().map_err(|error: T::Err| ConfigError::Invalid {
                name,
                reason: error.to_string(),
            })
        })
        .transpose()
}

/// Reads a setting that must be given.
///
/// # Errors
/// [`ConfigError`] if it is absent or cannot be parsed.
pub fn required<T>(env: &impl Env, name: &'static str, hint: &'static str) -> Result<T, ConfigError>
where
    T: FromStr<Err: fmt::Display>,
{
    optional(env, name)?.ok_or(ConfigError::Missing { name, hint })
}

/// The address of a server, with the credentials in it kept out of every print.
#[derive(Clone)]
pub struct ServerUrl {
    secret: SecretString,
    shown: String,
}

/// A text that is no server address. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as {0}")]
pub struct InvalidServerUrl(&'static str);

impl ServerUrl {
    /// Reads an address with one of the given schemes.
    ///
    /// # Errors
    /// [`InvalidServerUrl`] if it is no URL, has another scheme, or names no host.
    pub fn parse(
        text: &str,
        schemes: &[&str],
        example: &'static str,
    ) -> Result<Self, InvalidServerUrl> {
        let mut url = Url::parse(text).map_err(|_unprintable| InvalidServerUrl(example))?;
        if !schemes.contains(&url.scheme()) {
            return Err(InvalidServerUrl(example));
        }
        let secret = SecretString::from(text.to_owned());
        if url.password().is_some() {
            url.set_password(Some("***"))
                .map_err(|()| InvalidServerUrl(example))?;
        }
        // Connection options may carry a password of their own.
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        Ok(Self {
            secret,
            shown: url.to_string(),
        })
    }

    /// The address with its credentials, for the one call that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Where Postgres is: `postgres://` or `postgresql://`.
#[derive(Debug, Clone)]
pub struct PostgresUrl(pub ServerUrl);

impl FromStr for PostgresUrl {
    type Err = InvalidServerUrl;

    fn from_str(text: &str) -> Result<Self, InvalidServerUrl> {
        let schemes = ["postgres", "postgresql"];
        ServerUrl::parse(text, &schemes, "postgres://user:password@host:5432/runcast").map(Self)
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_of_an_address_shows_its_credentials() {
        let url: RedisUrl = "rediss://me:s3cret@host:6379/0?password=s3cret"
            .parse()
            .expect("a URL");
        let postgres: PostgresUrl = "postgres://me:s3cret@host/db?sslpassword=s3cret"
            .parse()
            .expect("a URL");
        for shown in [
            format!("{url}"),
            format!("{url:?}"),
            format!("{postgres}"),
            format!("{postgres:?}"),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("host"), "{shown}");
        }
        assert!(url.expose().contains("s3cret"));
    }

    #[test]
    fn errors_name_the_setting_and_the_way_out_but_not_the_value() {
        let env = HashMap::from([("REDIS_URL", "s3cret-without-scheme"), ("EMPTY", "")]);
        let error = required::<RedisUrl>(&env, "REDIS_URL", "")
            .expect_err("invalid")
            .to_string();
        assert!(
            error.starts_with("REDIS_URL is not valid") && error.contains("redis://"),
            "{error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
        let missing = required::<u16>(&env, "EMPTY", "a port")
            .expect_err("missing")
            .to_string();
        assert_eq!(missing, "EMPTY is not set: a port");
    }
}
