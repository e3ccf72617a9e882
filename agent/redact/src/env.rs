//! Which variables of an environment hold secrets.
//!
//! - By name, see [`super::secret_name`]: the whole value, and the parts of a structured one.
//!   Patterns added with `--redact-env` come first.
//! - By value, whatever the variable's name: the passwords of addresses
//!   (`scheme://user:password@host`), and fields with the name of a secret in JSON, `name=value`
//!   and the like. A password that equals the user name is not secret.
//!
//! Not secret are values that switch something on or off, and those that name an existing file: the
//! path of a key is not the key, and logs are full of paths. An added pattern matches these too.
//! Values that occur in ordinary output are ignored, see [`super::secret_value::check`], and
//! reported.
//!
//! `RUNCAST_TOKEN` is always redacted, even if nothing else is: it lets its holder publish, and no
//! reader of a run needs it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretSlice};

use super::name_pattern::NamePattern;
use super::redactor::{Candidate, Redactor, Rejection};
use super::secret_name::NameClass;
use super::secret_parts;
use super::secret_value::{Evidence, InvalidSecretValue};
use super::shape::{is_random, is_switch};

/// The variable with the token of the agent itself.
const TOKEN_VARIABLE: &str = "RUNCAST_TOKEN";

/// Directories, although their names end like that of a password.
const WORKING_DIRECTORIES: [&[u8]; 2] = [b"PWD", b"OLDPWD"];

/// Which variables of an environment are redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvRedaction {
    /// Variables with the usual names, passwords in URLs, and variables that match these patterns.
    Usual(Vec<NamePattern>),
    /// Only `RUNCAST_TOKEN`, and no tokens by their format.
    OwnToken,
}

/// A variable that is not redacted although its name says that it is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredVariable {
    name: String,
    /// Whether only a line, a field or the password in it is not redacted.
    is_part: bool,
    reason: InvalidSecretValue,
}

impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.is_part { "a part: " } else { "" };
        write!(f, "{} ({part}{})", self.name.escape_debug(), self.reason)
    }
}

/// A redactor for the output of a process with these variables, and the variables that it ignores.
pub fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    redaction: &EnvRedaction,
) -> (Redactor, Vec<IgnoredVariable>) {
    let mut names = Vec::new();
    let mut candidates = Vec::new();
    let mut ignored = Vec::new();
    for (name, value) in variables {
        let source = names.len();
        let value = SecretSlice::from(value.into_vec());
        let value = value.expose_secret();
        match redaction.evidence(name.as_bytes(), value) {
            Ok(Some(evidence)) => candidates.extend(Candidate::of(source, value, evidence)),
            // Addresses, fields and options with passwords are in any variable.
            Ok(None) if matches!(redaction, EnvRedaction::Usual(_)) => {
                let parts = secret_parts::parts(value, false).into_iter();
                let parts = parts.filter(|part| part.evidence == Evidence::Name);
                candidates.extend(parts.map(|part| Candidate::of_part(source, part)));
            }
            Ok(None) => {}
            Err(reason) => ignored.push(Rejection {
                source,
                is_part: false,
                reason,
            }),
        }
        names.push(name);
    }
    let redactor = match redaction {
        EnvRedaction::Usual(_) => Redactor::new(),
        EnvRedaction::OwnToken => Redactor::empty(),
    };
    ignored.extend(redactor.add_candidates(&candidates));
    ignored.sort_by_key(|rejection| rejection.source);
    let ignored = ignored.into_iter().map(|rejection| IgnoredVariable {
        name: names[rejection.source].to_string_lossy().into_owned(),
        is_part: rejection.is_part,
        reason: rejection.reason,
    });
    let mut ignored: Vec<IgnoredVariable> = ignored.collect();
    ignored.dedup();
    (redactor, ignored)
}

impl EnvRedaction {
    /// What says that the whole value of a variable is a secret, if anything; an error if only its
    /// name looks so.
    fn evidence(&self, name: &[u8], value: &[u8]) -> Result<Option<Evidence>, InvalidSecretValue> {
        let patterns = match self {
            _ if value.trim_ascii().is_empty() => return Ok(None),
            _ if name == TOKEN_VARIABLE.as_bytes() => return Ok(Some(Evidence::User)),
            Self::OwnToken => return Ok(None),
            Self::Usual(patterns) => patterns,
        };
        if patterns.iter().any(|pattern| pattern.matches(name)) {
            return Ok(Some(Evidence::User));
        }
        if WORKING_DIRECTORIES.contains(&name) || is_switch(value) || names_a_file(value) {
            return Ok(None);
        }
        match NameClass::of(name) {
            NameClass::Secret => Ok(Some(Evidence::Name)),
            NameClass::Key => Ok(Some(Evidence::KeyName)),
            NameClass::Setting if is_random(value) => Ok(Some(Evidence::Shape)),
            NameClass::DataKey => Err(InvalidSecretValue::DataKey),
            NameClass::Setting | NameClass::Other => Ok(None),
        }
    }
}

fn names_a_file(value: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(value));
    path.is_absolute() && path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], redaction: &EnvRedaction) -> (Redactor, Vec<String>) {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let (redactor, ignored) = from_variables(variables, redaction);
        (
            redactor,
            ignored.iter().map(IgnoredVariable::to_string).collect(),
        )
    }

    #[test]
    fn variables_are_secret_by_name_but_paths_are_not() {
        let variables = [
            ("DEPLOY_TOKEN", "deploy-value"),
            ("db_password", "password-value"),
            ("STRIPE_KEY", "str1pe-value-x7Q"),
            ("SSH_KEY_PATH", "/nowhere/key-value"),
            ("TLS_KEY", "/etc/passwd"),
            ("MAX_TOKENS", "tokens-value"),
            ("HOME", "home-value"),
            ("ACME_PIN", "acme-value"),
        ];
        let more = vec!["acme_*".parse().expect("a pattern")];
        let (redactor, ignored) = of(&variables, &EnvRedaction::Usual(more));
        assert_eq!(ignored, [""; 0]);
        let all = variables.map(|(_, value)| value).join(" ");
        assert_eq!(
            redactor.text(&all),
            "[redacted] [redacted] [redacted] /nowhere/key-value /etc/passwd tokens-value \
             home-value [redacted]"
        );
    }

    #[test]
    fn only_the_password_of_a_url_is_secret() {
        let variables = [
            (
                "DATABASE_URL",
                "postgres://me:p%40ssw0rd@host:1/db, http://a:b@c",
            ),
            ("REDIS_URL", "redis://same-name:same-name@host"),
            ("NO_PASSWORD_URL", "https://host/a:b@c"),
        ];
        let (redactor, ignored) = of(&variables[..2], &EnvRedaction::Usual(Vec::new()));
        assert_eq!(ignored, ["DATABASE_URL (a part: shorter than 6 bytes)"]);
        assert_eq!(
            redactor.text("postgres://me:p%40ssw0rd@host p@ssw0rd same-name"),
            "postgres://me:[redacted]@host [redacted] same-name"
        );
    }

    #[test]
    fn ignored_variables_are_named_without_their_values() {
        let variables = [
            ("A_TOKEN", "abc"),
            ("B_SECRET", "changeme"),
            ("C_KEY", ""),
            ("D_PASSWORD", "docker"),
            ("PARTITION_KEY", "customer_id"),
            ("FEATURE_KEY", "node-modules-v3"),
            ("USE_TOKEN", "true"),
            ("TOKEN_TYPE", "bearer"),
            ("WEAK_PASSWORD", "hunter22"),
        ];
        let (redactor, ignored) = of(&variables, &EnvRedaction::Usual(Vec::new()));
        assert_eq!(
            ignored,
            [
                "A_TOKEN (shorter than 6 bytes)",
                "B_SECRET (too common in ordinary text)",
                "D_PASSWORD (too common in ordinary text)",
                "PARTITION_KEY (a key of data, not a secret)",
                "FEATURE_KEY (looks like an identifier)",
            ]
        );
        let text = "docker ps; customer_id node-modules-v3 bearer ";
        assert_eq!(
            redactor.text(&format!("{text}hunter22")),
            format!("{text}[redacted]")
        );
    }

    #[test]
    fn the_agents_own_token_is_always_redacted() {
        let variables = [
            ("RUNCAST_TOKEN", "our-own-token"),
            ("B_TOKEN", "another-one"),
        ];
        let (redactor, _) = of(&variables, &EnvRedaction::OwnToken);
        assert_eq!(
            redactor.text("our-own-token another-one AKIAIOSFODNN7EXAMPLE"),
            "[redacted] another-one AKIAIOSFODNN7EXAMPLE"
        );
    }
}
