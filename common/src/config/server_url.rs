//! Server addresses with credentials. [`ServerUrl::expose`] is the only way to the credentials:
//! `Display` and `Debug` mask the password and all connection options.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

/// The address of a server, masked wherever it is printed.
#[derive(Clone)]
pub struct ServerUrl {
    secret: SecretString,
    masked: String,
}

/// The text is not a server address. The message does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as {0}")]
pub struct InvalidServerUrl(&'static str);

impl ServerUrl {
    /// Parses an address that has one of these schemes.
    pub fn parse(
        text: &str,
        schemes: &[&str],
        example: &'static str,
    ) -> Result<Self, InvalidServerUrl> {
        let mut url = Url::parse(text).map_err(|_may_repeat_secret| InvalidServerUrl(example))?;
        if !schemes.contains(&url.scheme()) {
            return Err(InvalidServerUrl(example));
        }
        let secret = SecretString::from(text.to_owned());
        if url.password().is_some() {
            url.set_password(Some("***"))
                .map_err(|()| InvalidServerUrl(example))?;
        }
        // Connection options may hold a second password.
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        Ok(Self {
            secret,
            masked: url.to_string(),
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
        f.write_str(&self.masked)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

/// The address of Postgres: `postgres://` or `postgresql://`.
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
    use crate::config::RedisUrl;

    #[test]
    fn printing_an_address_masks_its_credentials() {
        let url: RedisUrl = "rediss://me:s3cret@host:6379/0?password=s3cret"
            .parse()
            .expect("a URL");
        let postgres: PostgresUrl = "postgres://me:s3cret@host/db?sslpassword=s3cret"
            .parse()
            .expect("a URL");
        for printed in [
            format!("{url}"),
            format!("{url:?}"),
            format!("{postgres}"),
            format!("{postgres:?}"),
        ] {
            assert!(!printed.contains("s3cret"), "{printed}");
            assert!(printed.contains("host"), "{printed}");
        }
        assert!(url.expose().contains("s3cret"));
    }
}
