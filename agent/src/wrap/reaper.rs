//! Reaps processes that have ended: the command, and every orphan of it.
//!
//! `runcast` is the *subreaper* of everything that the command starts: a descendant whose parent
//! ends becomes a child of `runcast`, as it would become a child of process 1 (which `runcast` may
//! be, in a container). So every process that the command started stays reachable, and no zombie is
//! left to the parent of `runcast`.
//!
//! Only this module waits for processes (and the session leader for the command, see
//! [`session_leader`](super::session_leader)), with `waitpid(-1)`, so no other wait can take the
//! command's status. SIGCHLD arrives through a handler, not through the `signalfd` of
//! [`signals`](super::signals): a process that is started with SIGCHLD ignored would never learn
//! how its children ended. The signal is only a hint: every call reaps whatever has ended.
//!
//! It also notices that the command was stopped: see [`CommandChange::Stopped`].
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

/// Reaps the children of this process.
#[derive(Debug)]
pub(crate) struct Reaper {
    child_ended: Signal,
    command: Option<Pid>,
    status: Option<ExitStatus>,
    stopped_by: Option<i32>,
}

/// A change of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandChange {
    /// It has ended.
    Ended(ExitStatus),
    /// This signal has stopped it.
    Stopped(i32),
}

/// Whether there are children left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Children {
    Some,
    None,
}

impl Reaper {
    /// Must be called before the command is started, within a tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        if let Err(error) = set_child_subreaper(true) {
            tracing::warn!(%error, "orphans of the command cannot be adopted, the system will reap them");
        }
        Ok(Self {
            child_ended: signal(SignalKind::child())?,
            command: None,
            status: None,
            stopped_by: None,
        })
    }

    /// Waits until the command is stopped or has ended, and reaps orphans meanwhile. Cancel safe.
    /// Until it has ended, no other call may be made. Fails if the kernel does not report the
    /// status.
    pub(crate) async fn change_of(&mut self, command: Pid) -> io::Result<CommandChange> {
        self.command = Some(command);
        loop {
            let children = self.reap()?;
            if let Some(status) = self.status {
                return Ok(CommandChange::Ended(status));
            }
            if let Some(signal) = self.stopped_by.take() {
                return Ok(CommandChange::Stopped(signal));
            }
            if children == Children::None {
                return Err(io::Error::other(
                    "the kernel does not report how the command ended",
                ));
            }
            self.wait_for_signal().await?;
        }
    }

    /// Reaps until a condition holds, which is checked whenever a child has ended. Cancel safe.
    pub(crate) async fn until(&mut self, condition: impl Fn() -> bool) -> io::Result<()> {
        while self.reap()? == Children::Some {
            if condition() {
                // Reap what has ended since and made it hold.
                return self.reap().map(drop);
            }
            self.wait_for_signal().await?;
        }
        Ok(())
    }

    async fn wait_for_signal(&mut self) -> io::Result<()> {
        let gone = || io::Error::other("SIGCHLD cannot be waited for");
        self.child_ended.recv().await.ok_or_else(gone)
    }

    /// Reaps what has ended so far.
    fn reap(&mut self) -> io::Result<Children> {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((changed, status))) => {
                    let changed = Pid::from_raw(changed.as_raw_nonzero().get());
                    if self.command != Some(changed) || self.status.is_some() {
                        continue;
                    }
                    match status.stopping_signal() {
                        Some(signal) => self.stopped_by = Some(signal),
                        None => self.status = Some(ExitStatus::from_raw(status.as_raw())),
                    }
                }
                Ok(None) => return Ok(Children::Some),
                Err(Errno::CHILD) => return Ok(Children::None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
