//! Asks for a password on the terminal, twice, without showing it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};

/// A terminal that shows nothing until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // The end of the line is shown all the same.
        quiet.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Flush, &self.before) {
            tracing::warn!(%error, "the terminal stays without echo: type `stty echo`");
        }
    }
}

/// A password that was typed twice alike.
///
/// # Errors
/// If there is no terminal, or the two differ.
pub(crate) fn password() -> anyhow::Result<SecretString> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal
        .context("there is no terminal to ask for a password on: give it with --password-stdin")?;
    let quiet = Quiet::new(&terminal)?;
    let mut lines = BufReader::new(&terminal);
    let mut ask = |words: &str| -> anyhow::Result<SecretString> {
        write!(&terminal, "{words}: ")?;
        let mut line = String::new();
        lines.read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned().into())
    };
    let (first, second) = (ask("Password")?, ask("The same again")?);
    drop(quiet);
    if first.expose_secret() != second.expose_secret() {
        bail!("the two passwords differ; nothing is changed");
    }
    Ok(first)
}
