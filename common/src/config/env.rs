//! Reads settings by name, through a trait: tests pass a map and leave their own process alone.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// A source of settings.
pub trait Env {
    /// The value of a setting; an empty value counts as absent.
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
    /// A required setting is absent.
    #[error("{name} is not set: {hint}")]
    Missing {
        /// Name of the setting.
        name: &'static str,
        /// What to set it to.
        hint: &'static str,
    },
    /// The value cannot be parsed.
    #[error("{name} is not valid: {reason}")]
    Invalid {
        /// Name of the setting.
        name: &'static str,
        /// What is wrong, without the value where it could be secret.
        reason: String,
    },
}

/// Reads an optional setting of any parsable type.
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

/// Reads a required setting; `hint` tells the operator what to set it to.
pub fn required<T>(env: &impl Env, name: &'static str, hint: &'static str) -> Result<T, ConfigError>
where
    T: FromStr<Err: fmt::Display>,
{
    optional(env, name)?.ok_or(ConfigError::Missing { name, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisUrl;

    #[test]
    fn errors_name_the_setting_and_the_fix_but_not_the_value() {
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
