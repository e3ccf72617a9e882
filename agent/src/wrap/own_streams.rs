//! The own standard streams of `runcast`: stdout and stderr, which the command's are copied to, and
//! stdin, which the command reads itself.
//!
//! Once the command has pipes of its own, this process keeps stdin and stdout open only where it
//! needs them. So the writer of the one and the reader of the other learn when the command closes
//! it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use super::passthrough::Passthrough;
use super::startup::was_closed;

/// The copies to the own streams; none where the command gets no pipe.
#[derive(Debug)]
pub(crate) struct OwnStreams {
    pub(crate) stdout: Option<Passthrough>,
    pub(crate) stderr: Option<Passthrough>,
}

impl OwnStreams {
    /// Starts the copies of a command with pipes. A stream that was closed at the start stays
    /// closed for the command, and has none.
    pub(crate) fn of_pipes() -> io::Result<Self> {
        if was_closed(0) {
            fcntl_setfd(io::stdin(), FdFlags::CLOEXEC)?;
        }
        Ok(Self {
            stdout: copy_to(1, io::stdout())?,
            stderr: copy_to(2, io::stderr())?,
        })
    }

    /// Starts the copy of a command with a terminal.
    pub(crate) fn of_terminal() -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self {
            stdout: Some(Passthrough::start(stdout)?),
            stderr: None,
        })
    }
}

fn copy_to(number: usize, own: impl AsFd) -> io::Result<Option<Passthrough>> {
    if was_closed(number) {
        fcntl_setfd(own, FdFlags::CLOEXEC)?;
        return Ok(None);
    }
    let own = own.as_fd().try_clone_to_owned()?;
    Passthrough::start(own).map(Some)
}

/// Closes stdin and stdout, which the command and the copy of its output have by now.
pub(crate) fn close_stdin_and_stdout() {
    let close = || -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        Ok(dup2_stdout(&null)?)
    };
    if let Err(error) = close() {
        tracing::debug!(%error, "others learn late that the command has closed stdin or stdout");
    }
}
