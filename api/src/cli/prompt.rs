//! Prompts for a password on the terminal, twice, without echo.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};

/// A terminal without echo until this is dropped.
struct NoEcho<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> NoEcho<'a> {
    fn new(terminal: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        // The end of the line is still echoed.
        modes.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for NoEcho<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Flush, &self.before) {
            tracing::warn!(%error, "the terminal has no echo: type `stty echo`");
        }
    }
}

/// Reads a password that must be typed twice. An error if there is no terminal, or the two differ.
pub(crate) fn password() -> anyhow::Result<SecretString> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal
        .context("there is no terminal to prompt for a password: give it with --password-stdin")?;
    let no_echo = NoEcho::new(&terminal)?;
    let mut lines = BufReader::new(&terminal);
    let mut prompt = |words: &str| -> anyhow::Result<SecretString> {
        write!(&terminal, "{words}: ")?;
        let mut line = String::new();
        lines.read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned().into())
    };
    let (first, second) = (prompt("Password")?, prompt("Repeat password")?);
    drop(no_echo);
    if first.expose_secret() != second.expose_secret() {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(first)
}
