//! Which variables of an environment hold secrets.
//!
//! By name, letter case aside:
//! - `*TOKEN*`, `*SECRET*`, `*PASSWORD*`, `*PASSWD*`, `*PASSPHRASE*`, `*_PASS`, `*_PWD`: what the
//!   names say. But not `*MAX*TOKENS*`, `*NUM*TOKENS*` and `*TOKENIZER*`: to programs around language
//!   models these are counts and settings;
//! - `*_KEY`, `*APIKEY*`, `*API_KEY*`, `*ACCESS_KEY*`, `*PRIVATE_KEY*`, `*_SALT`: keys; but not
//!   `*PUBLIC_KEY*`;
//! - `*CREDENTIAL*`, `*_AUTH`, `*_COOKIE`, `*_DSN`, `*CONNECTION_STRING*`, `*WEBHOOK*`, `*_SAS`: texts
//!   with a secret in them, where a part cannot be told from the rest;
//! - whatever `--redact-env` adds.
//!
//! `*PATH`, `*_FILE`, `*_DIR`, `*_SOCK`, `*_KEY_ID` and `PWD`, `OLDPWD` are none by default, nor are
//! values that name an existing file: where a key lies is not the key, and logs are full of paths. A
//! pattern that was asked for takes these too.
//!
//! By value: the password in an address (`scheme://user:password@host`), whatever the variable is
//! called; the rest of the address stays readable. A password that equals the user name is none.
//!
//! `RUNCAST_TOKEN` is always redacted, even where nothing else is: it lets its holder publish, and no
//! reader of a run has a use for it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretSlice};

use super::pattern::{Pattern, matches};
use super::{Redactor, Refused};

/// Our own token.
const OWN_TOKEN: &str = "RUNCAST_TOKEN";

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

/// What of an environment is to be redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Variables with the usual names, passwords in addresses, and what these patterns add.
    Usual(Vec<Pattern>),
    /// Only `RUNCAST_TOKEN`, and no tokens by their shape.
    OwnToken,
}

/// A variable that is not redacted though its name says that it is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    name: String,
    reason: Refused,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name.escape_debug(), self.reason)
    }
}

/// A redactor for what a process with these variables prints, and which of them it leaves out.
pub fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    wanted: &Wanted,
) -> (Redactor, Vec<Ignored>) {
    let mut found: Vec<(OsString, SecretSlice<u8>)> = Vec::new();
    for (name, value) in variables {
        let value = SecretSlice::from(value.as_bytes().to_vec());
        if wanted.takes(&name, value.expose_secret()) {
            found.push((name, value));
        } else if matches!(wanted, Wanted::Usual(_)) {
            for password in passwords(value.expose_secret()) {
                found.push((name.clone(), SecretSlice::from(password)));
            }
        }
    }
    found.retain(|(_, value)| !value.expose_secret().is_empty());
    let redactor = match wanted {
        Wanted::Usual(_) => Redactor::new(),
        Wanted::OwnToken => Redactor::empty(),
    };
    let refused = redactor.add_all(found.iter().map(|(_, value)| value.expose_secret()));
    let mut ignored: Vec<Ignored> = Vec::new();
    for (index, reason) in refused {
        let name = found[index].0.to_string_lossy().into_owned();
        ignored.push(Ignored { name, reason });
    }
    ignored.dedup();
    (redactor, ignored)
}

impl Wanted {
    /// True if the whole value of a variable is a secret.
    fn takes(&self, name: &OsStr, value: &[u8]) -> bool {
        let name = name.as_bytes();
        let any = |names: &[&str]| names.iter().any(|one| matches(one.as_bytes(), name));
        match self {
            _ if name == OWN_TOKEN.as_bytes() => true,
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

/// The passwords of all addresses in a text, as they stand there and decoded.
fn passwords(text: &[u8]) -> Vec<Vec<u8>> {
    let mut passwords = Vec::new();
    for at in memchr::memmem::find_iter(text, b"://") {
        let rest = &text[at + 3..];
        let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#') || byte.is_ascii_whitespace();
        let authority = rest.split(ends).next().unwrap_or_default();
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

    fn of(variables: &[(&str, &str)], wanted: &Wanted) -> (Redactor, Vec<String>) {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let (redactor, ignored) = from_variables(variables, wanted);
        (redactor, ignored.iter().map(Ignored::to_string).collect())
    }

    #[test]
    fn secrets_are_known_by_their_names_and_paths_are_none() {
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
        let (redactor, ignored) = of(&variables, &Wanted::Usual(more));
        assert_eq!(ignored, [""; 0]);
        let all = variables.map(|(_, value)| value).join(" ");
        assert_eq!(
            redactor.text(&all),
            "[redacted] [redacted] [redacted] /nowhere/key-value /etc/passwd tokens-value \
             home-value [redacted]"
        );
    }

    #[test]
    fn of_addresses_only_the_password_is_a_secret() {
        let variables = [
            (
                "DATABASE_URL",
                "postgres://me:p%40ssw0rd@host:1/db, http://a:b@c",
            ),
            ("REDIS_URL", "redis://same-name:same-name@host"),
            ("NO_PASSWORD_URL", "https://host/a:b@c"),
        ];
        let (redactor, ignored) = of(&variables[..2], &Wanted::Usual(Vec::new()));
        assert_eq!(ignored, ["DATABASE_URL (shorter than 6 bytes)"]);
        assert_eq!(
            redactor.text("postgres://me:p%40ssw0rd@host p@ssw0rd same-name"),
            "postgres://me:[redacted]@host [redacted] same-name"
        );
        assert_eq!(passwords(variables[2].1.as_bytes()), [b""; 0]);
    }

    #[test]
    fn what_is_left_out_is_named_but_not_shown() {
        let variables = [("A_TOKEN", "abc"), ("B_SECRET", "changeme"), ("C_KEY", "")];
        let (_, ignored) = of(&variables, &Wanted::Usual(Vec::new()));
        assert_eq!(
            ignored,
            [
                "A_TOKEN (shorter than 6 bytes)",
                "B_SECRET (too common to be told from ordinary text)"
            ]
        );
    }

    #[test]
    fn our_own_token_is_redacted_even_where_nothing_else_is() {
        let variables = [
            ("RUNCAST_TOKEN", "our-own-token"),
            ("B_TOKEN", "another-one"),
        ];
        let (redactor, _) = of(&variables, &Wanted::OwnToken);
        assert_eq!(
            redactor.text("our-own-token another-one AKIAIOSFODNN7EXAMPLE"),
            "[redacted] another-one AKIAIOSFODNN7EXAMPLE"
        );
    }
}
