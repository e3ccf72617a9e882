//! The environment of the command: that of `runcast`, without its credentials, and with the run.
//!
//! Withheld are `RUNCAST_TOKEN` and all other variables of Runcast that hold a credential, and
//! `REDIS_URL`, by which `runcast` reaches Redis. Instead the command gets `RUNCAST_URL`,
//! `RUNCAST_RUN` and `RUNCAST_VARIATION`, and as `RUNCAST_TOKEN` a token of this run alone. So a
//! program that links the publisher joins the run by itself, and a program that prints its
//! environment reveals nothing but this run. `--keep-env` hands variables on unchanged: many
//! programs have a `REDIS_URL` of their own.
//!
//! This keeps credentials from what the command starts and prints, not from a command that looks
//! for them: a process of the same user can read the memory of `runcast`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use runcast_common::config::Env;
use runcast_redact::NamePattern;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;

use super::run::WrapOptions;
use crate::console::print_message;

/// The address of Redis. Unlike the names of Runcast's own variables it is common elsewhere.
const REDIS_VARIABLE: &str = "REDIS_URL";

/// What the names of all variables of Runcast begin with.
const PREFIX: &[u8] = b"RUNCAST_";

/// Parts of names: variables of Runcast with one of them hold a credential, or lead to Redis.
const CREDENTIAL_WORDS: [&[u8]; 5] = [b"TOKEN", b"SECRET", b"PASSWORD", b"CREDENTIAL", b"REDIS"];

/// The run that the command belongs to.
#[derive(Debug)]
pub(super) struct CommandRun {
    pub(super) run: Uuid,
    pub(super) variation: u16,
    /// A token of this run alone.
    pub(super) token: Option<SecretString>,
}

/// How the environment of the command differs from that of `runcast`.
#[derive(Debug, Default)]
pub(crate) struct CommandEnv {
    withheld: Vec<OsString>,
    set: Vec<(&'static str, SecretString)>,
}

impl CommandEnv {
    /// The environment of a command that belongs to this run; to none if it is not published.
    pub(super) fn new(options: &WrapOptions, of: Option<&CommandRun>, env: &impl Env) -> Self {
        let variables = std::env::vars_os();
        Self::of_variables(variables, options, of, env)
    }

    fn of_variables(
        variables: impl Iterator<Item = (OsString, OsString)>,
        options: &WrapOptions,
        of: Option<&CommandRun>,
        env: &impl Env,
    ) -> Self {
        let is_kept = |name: &[u8]| {
            let mut kept = options.keep_env.iter();
            kept.any(|pattern: &NamePattern| pattern.matches(name))
        };
        let variables: Vec<(OsString, OsString)> = variables.collect();
        let withheld = variables.iter().filter(|(name, value)| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            is_withheld(name, value) && !is_kept(name)
        });
        let mut command_env = Self {
            withheld: withheld.map(|(name, _)| name.clone()).collect(),
            set: Vec::new(),
        };
        let mut set = |name: &'static str, value: SecretString| {
            if !is_kept(name.as_bytes()) {
                command_env.set.push((name, value));
            }
        };
        let has_url = variables.iter().any(|(name, _)| name == "RUNCAST_URL");
        let url = env.get("RUNCAST_URL").filter(|_| has_url || of.is_some());
        if let Some(url) = url.and_then(|url| without_credentials(&url)) {
            set("RUNCAST_URL", url.into());
        }
        if let Some(of) = of {
            set("RUNCAST_RUN", of.run.to_string().into());
            set("RUNCAST_VARIATION", of.variation.to_string().into());
            if let Some(token) = &of.token {
                set("RUNCAST_TOKEN", token.clone());
            }
        }
        command_env
    }

    /// Says what the command may miss.
    pub(super) fn report(&self) {
        if self.withheld.iter().any(|name| name == REDIS_VARIABLE) {
            print_message(format_args!(
                "{REDIS_VARIABLE} is a setting of runcast and not handed on to the command; \
                 --keep-env {REDIS_VARIABLE} hands it on"
            ));
        }
    }

    /// Gives a command this environment.
    pub(super) fn apply(&self, command: &mut Command) {
        for name in &self.withheld {
            command.env_remove(name);
        }
        for (name, value) in &self.set {
            command.env(name, value.expose_secret());
        }
    }
}

/// Whether a variable is kept from the command.
fn is_withheld(name: &[u8], value: &[u8]) -> bool {
    let has = |text: &[u8], part: &[u8]| memchr::memmem::find(text, part).is_some();
    let is_credential = || {
        let by_name = CREDENTIAL_WORDS.iter().any(|word| has(name, word));
        // The address of the gateway is handed on without its credentials.
        by_name || name != b"RUNCAST_URL" && has(value, b"://") && has(value, b"@")
    };
    name == REDIS_VARIABLE.as_bytes() || name.starts_with(PREFIX) && is_credential()
}

/// An address without user and password; none if it cannot be parsed.
fn without_credentials(url: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    url.set_password(None).and(url.set_username("")).ok()?;
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command as RuncastCommand};

    /// The environment of the command, of these variables.
    fn environment<'a>(
        variables: &[(&'a str, &'a str)],
        arguments: &[&str],
        of: Option<&CommandRun>,
    ) -> BTreeMap<String, String> {
        let all = [&["runcast", "wrap"], arguments, &["--", "true"]].concat();
        let Ok(RuncastCommand::Wrap(wrap)) = Cli::try_parse_from(all).map(|cli| cli.command) else {
            panic!("not parsed: {arguments:?}")
        };
        let own = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let env: HashMap<&str, &str> = variables.iter().copied().collect();
        let command_env = CommandEnv::of_variables(own, &wrap.into(), of, &env);
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in variables {
            seen.insert((*name).to_owned(), (*value).to_owned());
        }
        for name in &command_env.withheld {
            seen.remove(name.to_str().expect("text"));
        }
        for (name, value) in &command_env.set {
            seen.insert((*name).to_owned(), value.expose_secret().to_owned());
        }
        seen
    }

    const OWN: [(&str, &str); 7] = [
        ("RUNCAST_URL", "http://me:pass@host:7070/"),
        ("RUNCAST_TOKEN", "of the installation"),
        ("RUNCAST_REDIS_CA", "/ca.pem"),
        ("RUNCAST_SPOOL", "/spool"),
        ("RUNCAST_ARCHIVE", "https://me:pass@store/"),
        ("REDIS_URL", "redis://host"),
        ("DATABASE_URL", "postgres://me:pass@host"),
    ];

    #[test]
    fn credentials_are_withheld_and_the_run_is_handed_on() {
        let of = CommandRun {
            run: Uuid::from_u128(1),
            variation: 2,
            token: Some("of the run".into()),
        };
        let seen = environment(&OWN, &[], Some(&of));
        let expected = [
            ("DATABASE_URL", "postgres://me:pass@host"),
            ("RUNCAST_RUN", "00000000-0000-0000-0000-000000000001"),
            ("RUNCAST_SPOOL", "/spool"),
            ("RUNCAST_TOKEN", "of the run"),
            ("RUNCAST_URL", "http://host:7070/"),
            ("RUNCAST_VARIATION", "2"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen, BTreeMap::from(expected));
        let unpublished = environment(&OWN, &[], None);
        let names: Vec<&str> = unpublished.keys().map(String::as_str).collect();
        assert_eq!(names, ["DATABASE_URL", "RUNCAST_SPOOL", "RUNCAST_URL"]);
        assert_eq!(environment(&[], &[], None), BTreeMap::new());
    }

    #[test]
    fn kept_variables_are_unchanged() {
        let keep = ["--keep-env", "REDIS_URL", "--keep-env", "runcast_*"];
        let of = CommandRun {
            run: Uuid::from_u128(1),
            variation: 0,
            token: Some("of the run".into()),
        };
        let seen = environment(&OWN, &keep, Some(&of));
        let own = OWN.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen, BTreeMap::from(own));
    }
}
