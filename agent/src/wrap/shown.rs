//! What may be shown of the wrapped command: its name, labels, command line, and streams, without the
//! secrets of its environment.
//!
//! Name and command line are redacted before anything shortens them, so that no half of a secret
//! escapes; all status texts are made from these.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use runcast_common::config::Env;

use super::{Options, child};
use crate::redact::{Ignored, Redactor, Stream, Wanted, from_variables};
use crate::say;

pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) command: Vec<OsString>,
    redactor: Redactor,
    ignored: Vec<Ignored>,
    /// The command may name more secrets in its output.
    obeys_masks: bool,
}

impl Shown {
    pub(crate) fn new(
        options: &Options,
        variables: impl Iterator<Item = (OsString, OsString)>,
        env: &impl Env,
    ) -> Self {
        let (redactor, ignored) = from_variables(variables, &options.redact);
        let words = options.command.iter();
        let redacted = words.map(|word| redactor.bytes(word.as_bytes()));
        let command: Vec<OsString> = redacted.map(OsString::from_vec).collect();
        let name = match &options.name {
            Some(name) => redactor.text(name).into_owned(),
            None => child::default_name(&command),
        };
        let labels = options.labels.iter().map(|(name, value)| {
            let shown = |text: &str| redactor.text(text).into_owned();
            (shown(name), shown(value))
        });
        let is_redacted = matches!(options.redact, Wanted::Usual(_));
        Self {
            name,
            labels: labels.collect(),
            command,
            redactor,
            ignored,
            obeys_masks: is_redacted && options.markers.resolve(env).github,
        }
    }

    /// A stream of the command. Where nothing is published nothing has to be looked for.
    pub(crate) fn stream(&self, published: bool) -> Stream {
        match published {
            true if self.obeys_masks => self.redactor.stream().obeying_mask_commands(),
            true => self.redactor.stream(),
            false => Redactor::empty().stream(),
        }
    }

    /// Says which variables are not redacted though they should be.
    pub(crate) fn tell_ignored(&self) {
        if self.ignored.is_empty() {
            return;
        }
        let names: Vec<String> = self.ignored.iter().map(Ignored::to_string).collect();
        say(format_args!("not redacted: {}", names.join(", ")));
    }
}
