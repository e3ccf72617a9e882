//! The command and everything it has started, as processes that signals can be sent to.
//!
//! Found by a walk over `/proc`: all descendants of ours, since [`reaper`](super::reaper) makes
//! orphans our children, wherever they have put themselves (sessions, process groups). Processes that
//! were our children before the command was started are left alone. The walk takes some
//! microseconds for each process of the machine and is done only when somebody pauses, resumes or cancels.
//!
//! Data: none between two walks, but for those earlier children. A process id may be given to another process
//! between the walk and the signal; so signals go through a *pidfd* whose process is known to have the same
//! start time. Bound: [`ROUNDS`] walks, since a process may start others while we walk.

use std::collections::{HashMap, HashSet};
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::signals::send;

/// Walks until nothing new is found: each stops or kills all that could have started something since the
/// one before.
const ROUNDS: usize = 16;

/// A process: its id, and when it was started, in clock ticks since boot. Together they are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    pid: i32,
    start: u64,
}

/// What the walk finds of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    process: Process,
    parent: i32,
    /// Ended, and not yet collected.
    dead: bool,
}

/// The command and what it has started.
#[derive(Debug)]
pub(crate) struct Job {
    /// The command's own process, until it has been collected.
    command: Option<Pid>,
    /// Children that we had before.
    strangers: HashSet<Process>,
    /// Our own process below us, which is no part of it.
    leader: Option<i32>,
}

impl Job {
    /// To be called before the command is started.
    pub(crate) fn none() -> Self {
        let strangers = match descendants(&HashSet::new()) {
            Ok(all) => all.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "/proc cannot be read");
                HashSet::new()
            }
        };
        Self {
            command: None,
            strangers,
            leader: None,
        }
    }

    /// The command has started, or has been collected.
    pub(crate) const fn set_command(&mut self, command: Option<Pid>) {
        self.command = command;
    }

    /// The session is led by this process of ours.
    pub(crate) const fn set_leader(&mut self, leader: i32) {
        self.leader = Some(leader);
    }

    /// True if nothing of it lives any more, as far as that can be seen.
    pub(crate) fn is_over(&self) -> bool {
        self.living().is_ok_and(|all| all.is_empty())
    }

    /// The end of our own process: of the session, and of its terminal.
    pub(crate) fn end_session(&self) {
        if let Some(leader) = self.leader {
            send(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }

    /// Sends a signal to the command alone.
    pub(crate) fn tell(&self, signal: Signal) {
        if let Some(command) = self.command {
            send(command, signal);
        }
    }

    /// Stops the command and all its descendants, parents first, so that none sees its children stop.
    pub(crate) fn stop(&self) {
        self.reach_all(Signal::SIGSTOP);
    }

    /// Lets all of it go on, children first.
    pub(crate) fn go_on(&self) {
        self.once(Signal::SIGCONT, |all| all.reverse());
    }

    /// Asks all of it to end.
    pub(crate) fn end(&self) {
        self.once(Signal::SIGTERM, |_| {});
        self.go_on();
    }

    /// Kills all of it. What is killed is to be collected.
    pub(crate) fn kill(&self) {
        self.reach_all(Signal::SIGKILL);
    }

    fn once(&self, signal: Signal, arrange: impl FnOnce(&mut Vec<Process>)) {
        match self.living() {
            Ok(mut all) => {
                arrange(&mut all);
                for process in all {
                    process.send(signal);
                }
            }
            Err(error) => self.only_command(signal, &error),
        }
    }

    /// Sends a signal that keeps processes from starting others, until there is nobody left to send it to.
    fn reach_all(&self, signal: Signal) {
        let mut reached = HashSet::new();
        for _ in 0..ROUNDS {
            let all = match self.living() {
                Ok(all) => all,
                Err(error) => return self.only_command(signal, &error),
            };
            let mut found = all
                .into_iter()
                .filter(|one| reached.insert(*one))
                .peekable();
            if found.peek().is_none() {
                return;
            }
            found.for_each(|process| process.send(signal));
        }
        tracing::warn!(%signal, "the command starts processes faster than they are found");
    }

    fn living(&self) -> io::Result<Vec<Process>> {
        let mut all = descendants(&self.strangers)?;
        all.retain(|process| Some(process.pid) != self.leader);
        Ok(all)
    }

    fn only_command(&self, signal: Signal, error: &io::Error) {
        tracing::warn!(%error, %signal, "/proc cannot be read: only the command itself gets the signal");
        self.tell(signal);
    }
}

impl Process {
    fn send(self, signal: Signal) {
        let pid = Pid::from_raw(self.pid);
        let known = rustix::process::Pid::from_raw(self.pid)
            .zip(rustix::process::Signal::from_named_raw(signal as i32));
        let Some((process, named)) = known else {
            return;
        };
        let sent = match pidfd_open(process, PidfdFlags::empty()) {
            // Whatever the id means now, the descriptor means the same process.
            Ok(descriptor) if self.is_there() => pidfd_send_signal(descriptor, named)
                .map_err(|error| Errno::from_raw(error.raw_os_error())),
            Ok(_of_another) => return,
            // An old kernel, or a sandbox.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => kill(pid, signal),
            Err(error) => Err(Errno::from_raw(error.raw_os_error())),
        };
        match sent {
            // It has just ended.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%pid, %signal, %error, "a signal could not be sent"),
        }
    }

    fn is_there(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.process == self)
    }
}

/// All living descendants of this process but for `strangers` and theirs, parents before their children.
///
/// # Errors
/// If `/proc` is not there, or is that of other processes than ours.
fn descendants(strangers: &HashSet<Process>) -> io::Result<Vec<Process>> {
    let own = Pid::this().as_raw();
    let myself = std::fs::read_to_string("/proc/self/stat")?;
    if parse(&myself).is_none_or(|stat| stat.process.pid != own) {
        return Err(io::Error::other("/proc shows other process ids than ours"));
    }
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        // One that has just ended is none.
        if let Some(stat) = pid.and_then(stat) {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let (mut found, mut parents) = (Vec::new(), vec![own]);
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).into_iter().flatten() {
            if !strangers.contains(&child.process) {
                parents.push(child.process.pid);
                if !child.dead {
                    found.push(child.process);
                }
            }
        }
    }
    Ok(found)
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`. The name, in brackets, may hold anything.
fn parse(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(' ')?;
    let (_name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        process: Process {
            pid: pid.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        dead: matches!(fields.first(), Some(&("Z" | "X"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = "71 (a) S (b) Z 5 71 71 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        let expected = Stat {
            process: Process {
                pid: 71,
                start: 987_654,
            },
            parent: 5,
            dead: true,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("71 (a"), None);
    }
}
