//! What production sends without encryption: nothing, unless `RUNCAST_ALLOW_PLAINTEXT` names it.
//!
//! In development nothing is refused. TLS that ends in front of the gateway counts as encryption:
//! `RUNCAST_PUBLIC_URL` is the address that clients use.

use std::fmt;
use std::str::FromStr;

use runcast_common::config::environment::Environment;
use runcast_common::config::{ConfigError, PostgresUrl};
use url::Url;

use super::Settings;
use super::table::{gateway, servers};

/// The ways that `RUNCAST_ALLOW_PLAINTEXT` may name.
const WAYS: [&str; 3] = ["public", "agents", "postgres"];

/// The `sslmode`s of Postgres in which the server has to prove who it is.
const VERIFIED_MODES: [&str; 2] = ["verify-ca", "verify-full"];

/// What may travel without encryption in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllowedPlaintext {
    /// Browsers and agents to the gateway.
    public: bool,
    /// Agents to Redis.
    agents: bool,
    /// Services to Postgres.
    postgres: bool,
}

impl FromStr for AllowedPlaintext {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut allowed = Self::default();
        for way in text.split(',').map(str::trim).filter(|way| !way.is_empty()) {
            match way {
                "public" => allowed.public = true,
                "agents" => allowed.agents = true,
                "postgres" => allowed.postgres = true,
                _ => return Err("expected a list of public, agents and postgres"),
            }
        }
        Ok(allowed)
    }
}

impl fmt::Display for AllowedPlaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = [self.public, self.agents, self.postgres];
        let named = WAYS.iter().zip(set).filter(|(_, is_set)| *is_set);
        let named: Vec<&str> = named.map(|(way, _)| *way).collect();
        f.write_str(&named.join(","))
    }
}

impl Settings {
    /// Refuses, in production, what would send secrets or output in clear text, and a gateway that
    /// does not know its own address.
    pub fn refuse_plaintext(&self, is_gateway: bool) -> Result<(), ConfigError> {
        if self.environment == Environment::Development {
            return Ok(());
        }
        let allowed = self.allowed_plaintext;
        if !allowed.postgres && !is_verified(&self.postgres) {
            return Err(servers::DATABASE_URL.invalid(refusal(
                "Postgres need not prove who it is: add ?sslmode=verify-full",
                "postgres",
            )));
        }
        if !is_gateway {
            return Ok(());
        }
        let public = self.public_url.as_ref().ok_or(ConfigError::Missing {
            name: gateway::PUBLIC_URL.entry.name,
            hint: "production needs the address at which browsers and agents reach the gateway",
        })?;
        if !allowed.public && !is_https(public) {
            return Err(gateway::PUBLIC_URL.invalid(refusal(
                "tokens and output would travel in clear text: use https",
                "public",
            )));
        }
        if let Some(redis) = &self.publish_redis
            && !allowed.agents
            && !redis.expose().starts_with("rediss")
        {
            return Err(servers::PUBLISH_REDIS_URL.invalid(refusal(
                "agents would send output and a password in clear text: use rediss",
                "agents",
            )));
        }
        Ok(())
    }
}

fn refusal(what: &str, way: &str) -> String {
    format!("{what}, or allow it with RUNCAST_ALLOW_PLAINTEXT={way}")
}

fn is_https(url: &Url) -> bool {
    url.scheme() == "https"
}

/// Whether the connection is encrypted and verified, or stays on this machine in a socket.
fn is_verified(postgres: &PostgresUrl) -> bool {
    let Ok(url) = Url::parse(postgres.0.expose()) else {
        return false;
    };
    let option = |name: &str| {
        let pair = url.query_pairs().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.into_owned())
    };
    let by_socket =
        |host: &str| host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
    let is_local = url.host_str().is_some_and(by_socket)
        || option("host").is_some_and(|host| by_socket(&host));
    is_local || option("sslmode").is_some_and(|mode| VERIFIED_MODES.contains(&mode.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Settings beside those of a good production.
    type Given<'a> = &'a [(&'a str, &'a str)];

    fn refused(more: Given<'_>, is_gateway: bool) -> Option<String> {
        let mut env = HashMap::from([
            ("RUNCAST_ENV", "production"),
            ("REDIS_URL", "redis://localhost"),
            ("DATABASE_URL", "postgres://db/runcast?sslmode=verify-full"),
            ("RUNCAST_PUBLIC_URL", "https://runcast.example.com"),
        ]);
        env.extend(more.iter().copied());
        let settings = Settings::from_env(&env).expect("settings");
        let refused = settings.refuse_plaintext(is_gateway);
        refused.err().map(|error| error.to_string())
    }

    #[test]
    fn production_refuses_what_travels_in_clear_text_unless_it_is_named() {
        assert_eq!(refused(&[], true), None);
        let publish = ("RUNCAST_PUBLISH_REDIS_URL", "redis://u:p@host");
        let cases: [(Given<'_>, &str, &str); 5] = [
            (&[("RUNCAST_PUBLIC_URL", "")], "RUNCAST_PUBLIC_URL", ""),
            (
                &[("RUNCAST_PUBLIC_URL", "http://host")],
                "RUNCAST_PUBLIC_URL",
                "public",
            ),
            (&[publish], "RUNCAST_PUBLISH_REDIS_URL", "agents"),
            (
                &[("DATABASE_URL", "postgres://db/runcast")],
                "DATABASE_URL",
                "postgres",
            ),
            (
                &[("DATABASE_URL", "postgres://db/runcast?sslmode=require")],
                "DATABASE_URL",
                "postgres",
            ),
        ];
        for (settings, name, way) in cases {
            let message = refused(settings, true).expect("refused");
            assert!(message.starts_with(name), "{message}");
            if !way.is_empty() {
                let allowed = [settings, &[("RUNCAST_ALLOW_PLAINTEXT", way)]].concat();
                assert_eq!(refused(&allowed, true), None);
            }
            let in_development = [settings, &[("RUNCAST_ENV", "development")]].concat();
            assert_eq!(refused(&in_development, true), None);
        }
        let socket = (
            "DATABASE_URL",
            "postgres://%2Fvar%2Frun%2Fpostgresql/runcast",
        );
        assert_eq!(
            refused(&[socket], true),
            None,
            "a socket stays on this machine"
        );
        assert_eq!(refused(&[publish, ("RUNCAST_PUBLIC_URL", "")], false), None);
    }

    #[test]
    fn the_list_is_read_and_shown() {
        let allowed: AllowedPlaintext = "postgres, public".parse().expect("a list");
        assert_eq!(allowed.to_string(), "public,postgres");
        assert_eq!("".parse(), Ok(AllowedPlaintext::default()));
        let unknown = "all".parse::<AllowedPlaintext>().expect_err("no way");
        assert!(unknown.contains("public"), "{unknown}");
    }
}
