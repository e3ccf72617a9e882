//! The pseudo-terminal of a command that is run with `--tty`.
//!
//! The command is in a session of its own, whose [leader](super::leader) belongs to us, and has the terminal as its
//! stdin, stdout and stderr; we hold the other side. What it writes to either comes as one stream, in exactly its
//! order, and is published as `output` of the stream `tty`.
//!
//! Line ends: a terminal turns each `\n` that is written to it into `\r\n`, since that is what a screen needs.
//! Where our own stdout is a terminal, it is in raw mode and shows bytes as they come, so the
//! command's terminal has to do it. Where our stdout is a file or a pipe there is no screen, and it is turned
//! off: what is passed on and published is then byte for byte what the command wrote. A command may
//! change it at any time, as on any terminal.
//!
//! The end: the kernel reports an I/O error to us once the last process has closed the terminal, after all that was
//! written has been read. A process that still has it open a while after the command's end gets SIGHUP.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;

use pty_process::blocking::open;
use runcast_common::config::Env;
use runcast_common::protocol::event::Kind;
use rustix::termios::{
    InputModes, OptionalActions, OutputModes, tcgetattr, tcsetattr, tcsetwinsize,
};

use super::feed::Source;
use super::leader::Leader;
use super::own_terminal::{own_modes, own_size, shows_output, size};

/// What the command writes to its terminal.
pub(crate) const TTY: Source = Source {
    kind: Kind::Output,
    name: "tty",
};

/// What the page and most terminals understand. For where TERM is not set, as in containers: programs
/// would take it for a terminal that can do nothing.
const TERM: &str = "xterm-256color";

/// Our side of the command's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    /// Starts a command under a new terminal; gives its process id.
    ///
    /// # Errors
    /// The command's, as without a terminal, or that there is no terminal to be had.
    pub(crate) fn spawn(command: &[OsString], env: &impl Env) -> io::Result<(Self, Leader, u32)> {
        let (master, terminal) = open().map_err(|error| {
            io::Error::other(format!("there is no pseudo-terminal to be had: {error}"))
        })?;
        tcsetwinsize(&master, size(env))?;
        let mut modes = match own_modes() {
            Some(modes) => modes,
            None => tcgetattr(&terminal)?,
        };
        modes.input_modes.insert(InputModes::IUTF8);
        modes.output_modes.set(OutputModes::ONLCR, shows_output());
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        let settings: &[_] = match env.get("TERM") {
            Some(_) => &[],
            None => &[("TERM", TERM)],
        };
        let (leader, pid) = Leader::start(command, terminal, settings)?;
        let master = OwnedFd::from(master);
        Ok((Self { master }, leader, pid))
    }

    /// The same side once more, for another use.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    /// Takes over the size of our own terminal; the kernel tells the programs under this one.
    pub(crate) fn follow_size(&self) {
        if let Some(size) = own_size()
            && let Err(error) = tcsetwinsize(&self.master, size)
        {
            tracing::warn!(%error, "the size of the terminal cannot be set");
        }
    }
}
