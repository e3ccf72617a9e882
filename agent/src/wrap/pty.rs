//! The output of the terminal.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;

use pty_process::blocking::open;
use runcast_common::config::Env;
use runcast_common::protocol::event::Kind;
use rustix::termios::{
    InputModes, OptionalActions, OutputModes, tcgetattr, tcsetattr, tcsetwinsize,
};

use super::chunks::StreamSource;
use super::command_env::CommandEnv;
use super::parent_tty::{command_size, own_modes, own_size, stdout_is_tty};
use super::session_leader::SessionLeader;
use super::startup::Startup;

/// What the command writes to its terminal.
pub(crate) const TTY: StreamSource = StreamSource {
    kind: Kind::Output,
    name: "tty",
};

/// TERM if it is not set, as in containers: programs would assume a terminal without any features.
/// The page and most terminals understand this one.
const DEFAULT_TERM: &str = "xterm-256color";

/// The master side of the command's terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    master: OwnedFd,
}

impl Pty {
    /// Starts a command in a new terminal. Returns its process id. Fails like a start without a
    /// terminal, or if no terminal is available.
    pub(crate) fn spawn(
        command: &[OsString],
        env: &impl Env,
        command_env: &CommandEnv,
        startup: &Startup,
    ) -> io::Result<(Self, SessionLeader, u32)> {
        let (master, terminal) = open().map_err(|error| {
            io::Error::other(format!("no pseudo-terminal is available: {error}"))
        })?;
        tcsetwinsize(&master, command_size(env))?;
        let mut modes = match own_modes() {
            Some(modes) => modes,
            None => tcgetattr(&terminal)?,
        };
        modes.input_modes.insert(InputModes::IUTF8);
        modes.output_modes.set(OutputModes::ONLCR, stdout_is_tty());
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        let settings: &[_] = match env.get("TERM") {
            Some(_) => &[],
            None => &[("TERM", DEFAULT_TERM)],
        };
        let (leader, pid) =
            SessionLeader::start(command, terminal, settings, command_env, startup)?;
        let master = OwnedFd::from(master);
        Ok((Self { master }, leader, pid))
    }

    /// Another descriptor of the master side.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    /// Copies the size of the own terminal; the kernel notifies the programs in this one.
    pub(crate) fn copy_own_size(&self) {
        if let Some(size) = own_size()
            && let Err(error) = tcsetwinsize(&self.master, size)
        {
            tracing::warn!(%error, "the size of the command's terminal cannot be set");
        }
    }
}
