//! What may be published about the command: its name, labels, command line and streams, without the
//! secrets of its environment and of its arguments.
//!
//! Name and command line are redacted before anything shortens them, so that no part of a secret
//! escapes. All status texts are made from these.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use runcast_common::config::Env;
use runcast_redact::{
    CommandLine, EnvRedaction, IgnoredVariable, RedactStream, Redactor, from_variables,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::child;
use super::run::WrapOptions;
use crate::console::print_message;

/// What may be published about the command.
pub(crate) struct CommandDescription {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) command: Vec<OsString>,
    redactor: Redactor,
    ignored: Vec<IgnoredVariable>,
    /// Whether `::add-mask::` lines in the output add secrets.
    follows_masks: bool,
}

impl CommandDescription {
    pub(crate) fn new(
        options: &WrapOptions,
        variables: impl Iterator<Item = (OsString, OsString)>,
        env: &impl Env,
    ) -> Self {
        let (redactor, ignored) = from_variables(variables, &options.redact);
        let is_redacted = matches!(options.redact, EnvRedaction::Usual(_));
        let words = options.command.iter().map(|word| word.as_bytes());
        let words = match is_redacted {
            true => CommandLine::new(words, &redactor).arguments,
            false => words.map(|word| redactor.bytes(word)).collect(),
        };
        let command: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
        let name = match &options.name {
            Some(name) => redactor.text(name).into_owned(),
            None => child::default_name(&command),
        };
        let labels = options.labels.iter().map(|(name, value)| {
            let redact = |text: &str| redactor.text(text).into_owned();
            (redact(name), redact(value))
        });
        Self {
            name,
            labels: labels.collect(),
            command,
            redactor,
            ignored,
            follows_masks: is_redacted && options.markers.resolve(env).github,
        }
    }

    /// Also redacts the token that the command gets.
    pub(crate) fn redact_token(&self, token: &SecretString) {
        if let Err(rejected) = self.redactor.add(token.expose_secret().as_bytes()) {
            tracing::warn!(error = %rejected, "the token of the run is not redacted");
        }
    }

    /// The redaction of one stream; without a publisher there is nothing to redact.
    pub(crate) fn stream(&self, is_published: bool) -> RedactStream {
        match is_published {
            true if self.follows_masks => self.redactor.stream().with_mask_commands(),
            true => self.redactor.stream(),
            false => Redactor::empty().stream(),
        }
    }

    /// Reports variables that are not redacted although their names say that they are secrets.
    pub(crate) fn report_ignored(&self) {
        if self.ignored.is_empty() {
            return;
        }
        let names: Vec<String> = self
            .ignored
            .iter()
            .map(IgnoredVariable::to_string)
            .collect();
        print_message(format_args!("not redacted: {}", names.join(", ")));
    }
}
