//! Collects processes that have ended: the command, and every orphan of it.
//!
//! We are the *subreaper* of all that the command starts: a descendant whose parent ends becomes our
//! child, as it would become that of process 1 (which we may well be, in a container). So nothing that
//! the command started is out of reach, and no zombie is left to whoever runs us.
//!
//! Only this file waits for processes (and the leader of a session for the command, see
//! [`leader`](super::leader)), by `waitpid(-1)`, so the command's own status cannot be taken by
//! another wait. SIGCHLD comes by a handler, not by the `signalfd` of [`signals`](super::signals):
//! a process that ignores it, as some start us, would never learn how its children ended. It is
//! only a hint: whatever has ended is collected whenever we look.
//!
//! Data: the command's status, once it is known.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for our children.
#[derive(Debug)]
pub(crate) struct Reaper {
    died: Signal,
    command: Option<Pid>,
    status: Option<ExitStatus>,
}

/// Whether there are children left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Some,
    None,
}

impl Reaper {
    /// To be called before the command is started, within a tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        if let Err(error) = set_child_subreaper(true) {
            tracing::warn!(%error, "orphans of the command are left to the system");
        }
        Ok(Self {
            died: signal(SignalKind::child())?,
            command: None,
            status: None,
        })
    }

    /// Waits for the end of the command, and collects its orphans meanwhile. Can be dropped at any time, and
    /// is the only call to make before the command's end is known.
    ///
    /// # Errors
    /// If the kernel does not tell how it ended.
    pub(crate) async fn end_of(&mut self, command: Pid) -> io::Result<ExitStatus> {
        self.command = Some(command);
        loop {
            let left = self.collect()?;
            if let Some(status) = self.status {
                return Ok(status);
            }
            if left == Left::None {
                return Err(io::Error::other("the kernel does not tell how it ended"));
            }
            self.signal().await?;
        }
    }

    /// Collects until something holds, which is asked whenever a child has ended. Can be dropped at any time.
    pub(crate) async fn until(&mut self, holds: impl Fn() -> bool) -> io::Result<()> {
        while self.collect()? == Left::Some {
            if holds() {
                // What has ended since we collected made it hold.
                return self.collect().map(drop);
            }
            self.signal().await?;
        }
        Ok(())
    }

    async fn signal(&mut self) -> io::Result<()> {
        let gone = || io::Error::other("SIGCHLD cannot be waited for");
        self.died.recv().await.ok_or_else(gone)
    }

    /// Collects what has ended by now.
    fn collect(&mut self) -> io::Result<Left> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((ended, status))) => {
                    let ended = Pid::from_raw(ended.as_raw_nonzero().get());
                    if self.command == Some(ended) && self.status.is_none() {
                        self.status = Some(ExitStatus::from_raw(status.as_raw()));
                    }
                }
                Ok(None) => return Ok(Left::Some),
                Err(Errno::CHILD) => return Ok(Left::None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
