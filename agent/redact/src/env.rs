//! Which variables of an environment hold secrets.
//!
//! By name, in upper or lower case:
//! - `*TOKEN*`, `*SECRET*`, `*PASSWORD*`, `*PASSWD*`, `*PASSPHRASE*`, `*_PASS`, `*_PWD`: as the
//!   names say. But not `*MAX*TOKENS*`, `*NUM*TOKENS*` and `*TOKENIZER*`: programs that use
//!   language models have counts and settings with these names;
//! - `*_KEY`, `*APIKEY*`, `*API_KEY*`, `*ACCESS_KEY*`, `*PRIVATE_KEY*`, `*_SALT`: keys; but not
//!   `*PUBLIC_KEY*`;
//! - `*CREDENTIAL*`, `*_AUTH`, `*_COOKIE`, `*_DSN`, `*CONNECTION_STRING*`, `*WEBHOOK*`, `*_SAS`:
//!   texts that contain a secret which cannot be separated from the rest;
//! - patterns added with `--redact-env`.
//!
//! Not secret by default are `*PATH`, `*_FILE`, `*_DIR`, `*_SOCK`, `*_KEY_ID`, `PWD` and `OLDPWD`,
//! and values that name an existing file: the path of a key is not the key, and logs are full of
//! paths. An added pattern matches these too.
//!
//! By value: the password in a URL (`scheme://user:password@host`), whatever the variable's name;
//! the rest of the URL stays readable. A password that equals the user name is not secret.
//!
//! `RUNCAST_TOKEN` is always redacted, even if nothing else is: it lets its holder publish, and no
//! reader of a run needs it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretSlice};

use super::name_pattern::{NamePattern, matches};
use super::redactor::Redactor;
use super::secret_value::InvalidSecretValue;

/// The variable with the token of the agent itself.
const TOKEN_VARIABLE: &str = "RUNCAST_TOKEN";

const SECRET_NAMES: [&str; 20] = [
    "*TOKEN*",
    "*SECRET*",
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*_PASS",
    "*_PWD",
    "*_KEY",
    "*APIKEY*",
    "*API_KEY*",
    "*ACCESS_KEY*",
    "*PRIVATE_KEY*",
    "*_SALT",
    "*CREDENTIAL*",
    "*_AUTH",
    "*_COOKIE",
    "*_DSN",
    "*CONNECTION_STRING*",
    "*WEBHOOK*",
    "*_SAS",
];

const HARMLESS_NAMES: [&str; 11] = [
    "*MAX*TOKENS*",
    "*NUM*TOKENS*",
    "*TOKENIZER*",
    "*PUBLIC_KEY*",
    "*PATH",
    "*_FILE",
    "*_DIR",
    "*_SOCK",
    "*_KEY_ID",
    "PWD",
    "OLDPWD",
];

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
    reason: InvalidSecretValue,
}

impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name.escape_debug(), self.reason)
    }
}

/// A redactor for the output of a process with these variables, and the variables that it ignores.
pub fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    redaction: &EnvRedaction,
) -> (Redactor, Vec<IgnoredVariable>) {
    let mut found: Vec<(OsString, SecretSlice<u8>)> = Vec::new();
    for (name, value) in variables {
        let value = SecretSlice::from(value.as_bytes().to_vec());
        if redaction.is_secret(&name, value.expose_secret()) {
            found.push((name, value));
        } else if matches!(redaction, EnvRedaction::Usual(_)) {
            for password in passwords(value.expose_secret()) {
                found.push((name.clone(), SecretSlice::from(password)));
            }
        }
    }
    found.retain(|(_, value)| !value.expose_secret().is_empty());
    let redactor = match redaction {
        EnvRedaction::Usual(_) => Redactor::new(),
        EnvRedaction::OwnToken => Redactor::empty(),
    };
    let rejected = redactor.add_all(found.iter().map(|(_, value)| value.expose_secret()));
    let mut ignored: Vec<IgnoredVariable> = Vec::new();
    for (index, reason) in rejected {
        let name = found[index].0.to_string_lossy().into_owned();
        ignored.push(IgnoredVariable { name, reason });
    }
    ignored.dedup();
    (redactor, ignored)
}

impl EnvRedaction {
    /// Whether the whole value of a variable is a secret.
    fn is_secret(&self, name: &OsStr, value: &[u8]) -> bool {
        let name = name.as_bytes();
        let any = |names: &[&str]| names.iter().any(|one| matches(one.as_bytes(), name));
        match self {
            _ if name == TOKEN_VARIABLE.as_bytes() => true,
            Self::OwnToken => false,
            Self::Usual(more) if more.iter().any(|pattern| pattern.matches(name)) => true,
            Self::Usual(_) => any(&SECRET_NAMES) && !any(&HARMLESS_NAMES) && !names_a_file(value),
        }
    }
}

fn names_a_file(value: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(value));
    path.is_absolute() && path.exists()
}

/// The passwords of all URLs in a text, both as written and decoded.
fn passwords(text: &[u8]) -> Vec<Vec<u8>> {
    let mut passwords = Vec::new();
    for at in memchr::memmem::find_iter(text, b"://") {
        let rest = &text[at + 3..];
        let is_end = |byte: &u8| matches!(byte, b'/' | b'?' | b'#') || byte.is_ascii_whitespace();
        let authority = rest.split(is_end).next().unwrap_or_default();
        let Some(at) = memchr::memrchr(b'@', authority) else {
            continue;
        };
        let mut parts = authority[..at].splitn(2, |byte| *byte == b':');
        let (user, password) = (parts.next(), parts.next());
        let Some(password) = password.filter(|_| user != password) else {
            continue;
        };
        let decoded = percent_decoded(password);
        if decoded != password {
            passwords.push(decoded);
        }
        passwords.push(password.to_vec());
    }
    passwords
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &more[2..];
            }
            _ => {
                decoded.push(*first);
                rest = more;
            }
        }
    }
    decoded
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
            ("STRIPE_KEY", "stripe-value"),
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
        assert_eq!(ignored, ["DATABASE_URL (shorter than 6 bytes)"]);
        assert_eq!(
            redactor.text("postgres://me:p%40ssw0rd@host p@ssw0rd same-name"),
            "postgres://me:[redacted]@host [redacted] same-name"
        );
        assert_eq!(passwords(variables[2].1.as_bytes()), [b""; 0]);
    }

    #[test]
    fn ignored_variables_are_named_without_their_values() {
        let variables = [("A_TOKEN", "abc"), ("B_SECRET", "changeme"), ("C_KEY", "")];
        let (_, ignored) = of(&variables, &EnvRedaction::Usual(Vec::new()));
        assert_eq!(
            ignored,
            [
                "A_TOKEN (shorter than 6 bytes)",
                "B_SECRET (too common in ordinary text)"
            ]
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
