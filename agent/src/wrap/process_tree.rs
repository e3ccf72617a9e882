//! The command and every process that it started, to send signals to.
//!
//! They are found by reading `/proc`: all descendants of `runcast`, since [`reaper`](super::reaper)
//! adopts orphans, whatever session or process group they are in. Processes that were children
//! before the command was started are excluded. Reading takes some microseconds per process of the
//! machine, and happens only for pause, resume and cancel.
//!
//! Data: none between two reads, except those earlier children. A process id may be reused between
//! reading and signalling, so signals go through a *pidfd* whose process is known to have the same
//! start time. Bound: [`MAX_ROUNDS`] of reading, since processes may start others meanwhile.

use std::collections::{HashMap, HashSet};
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::signals::{send, send_number};

/// Rounds of reading until no new process is found: each round stops or kills every process that
/// could have started one since the previous round.
const MAX_ROUNDS: usize = 16;

/// A process: its id, and its start time in clock ticks since boot. Together they are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ProcessId {
    pid: i32,
    start: u64,
}

/// What `/proc` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessStat {
    process: ProcessId,
    parent: i32,
    /// A zombie: ended and not reaped yet.
    is_zombie: bool,
}

/// The command and its descendants.
#[derive(Debug)]
pub(crate) struct ProcessTree {
    /// The command's process, until it is reaped.
    command: Option<Pid>,
    /// Children from before the command was started.
    earlier: HashSet<ProcessId>,
    /// The session leader, which belongs to `runcast`.
    leader: Option<i32>,
}

impl ProcessTree {
    /// Must be created before the command is started.
    pub(crate) fn before_start() -> Self {
        let earlier = match descendants(&HashSet::new()) {
            Ok(all) => all.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "/proc cannot be read");
                HashSet::new()
            }
        };
        Self {
            command: None,
            earlier,
            leader: None,
        }
    }

    /// Sets the command's process once it has started, or none once it was reaped.
    pub(crate) const fn set_command(&mut self, command: Option<Pid>) {
        self.command = command;
    }

    /// Sets the session leader.
    pub(crate) const fn set_leader(&mut self, leader: i32) {
        self.leader = Some(leader);
    }

    /// Whether all processes have ended, as far as `/proc` shows.
    pub(crate) fn has_ended(&self) -> bool {
        self.living().is_ok_and(|all| all.is_empty())
    }

    /// Kills the session leader, which hangs up the terminal.
    pub(crate) fn end_session(&self) {
        if let Some(leader) = self.leader {
            send(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }

    /// Sends a signal to the command only.
    pub(crate) fn signal_command(&self, signal: Signal) {
        self.forward(signal as i32);
    }

    /// Sends a signal that may have no name to the command only.
    pub(crate) fn forward(&self, number: i32) {
        if let Some(command) = self.command {
            send_number(command, number);
        }
    }

    /// Stops all processes, parents first, so that no parent notices its children stop.
    pub(crate) fn stop(&self) {
        self.signal_until_none_new(Signal::SIGSTOP);
    }

    /// Resumes all processes, children first.
    pub(crate) fn resume(&self) {
        self.signal_all(Signal::SIGCONT, |all| all.reverse());
    }

    /// Sends SIGTERM to all processes, and resumes them so that they notice.
    pub(crate) fn terminate(&self) {
        self.signal_all(Signal::SIGTERM, |_| {});
        self.resume();
    }

    /// Kills all processes. They must be reaped afterwards.
    pub(crate) fn kill(&self) {
        self.signal_until_none_new(Signal::SIGKILL);
    }

    fn signal_all(&self, signal: Signal, arrange: impl FnOnce(&mut Vec<ProcessId>)) {
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

    /// Sends a signal that keeps processes from starting others, until no new process is found.
    fn signal_until_none_new(&self, signal: Signal) {
        let mut reached = HashSet::new();
        for _ in 0..MAX_ROUNDS {
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
        tracing::warn!(%signal, "the command starts processes faster than they can be found");
    }

    fn living(&self) -> io::Result<Vec<ProcessId>> {
        let mut all = descendants(&self.earlier)?;
        all.retain(|process| Some(process.pid) != self.leader);
        Ok(all)
    }

    fn only_command(&self, signal: Signal, error: &io::Error) {
        tracing::warn!(%error, %signal, "/proc cannot be read: only the command itself gets the signal");
        self.signal_command(signal);
    }
}

impl ProcessId {
    fn send(self, signal: Signal) {
        let pid = Pid::from_raw(self.pid);
        let named = rustix::process::Pid::from_raw(self.pid)
            .zip(rustix::process::Signal::from_named_raw(signal as i32));
        let Some((process, named)) = named else {
            return;
        };
        let sent = match pidfd_open(process, PidfdFlags::empty()) {
            // Whatever the id refers to now, the descriptor refers to this process.
            Ok(descriptor) if self.is_same() => pidfd_send_signal(descriptor, named)
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

    fn is_same(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.process == self)
    }
}

/// All living descendants of this process, except `earlier` and their descendants; parents before
/// their children. Fails if `/proc` is missing or shows another PID namespace.
fn descendants(earlier: &HashSet<ProcessId>) -> io::Result<Vec<ProcessId>> {
    let own = Pid::this().as_raw();
    let myself = std::fs::read_to_string("/proc/self/stat")?;
    if parse(&myself).is_none_or(|stat| stat.process.pid != own) {
        return Err(io::Error::other("/proc belongs to another PID namespace"));
    }
    let mut children: HashMap<i32, Vec<ProcessStat>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        // A process that has just ended has no `stat`.
        if let Some(stat) = pid.and_then(stat) {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let (mut found, mut parents) = (Vec::new(), vec![own]);
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).into_iter().flatten() {
            if !earlier.contains(&child.process) {
                parents.push(child.process.pid);
                if !child.is_zombie {
                    found.push(child.process);
                }
            }
        }
    }
    Ok(found)
}

fn stat(pid: i32) -> Option<ProcessStat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `/proc/PID/stat`. The name, in parentheses, may contain anything.
fn parse(line: &str) -> Option<ProcessStat> {
    let (pid, rest) = line.split_once(' ')?;
    let (_name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStat {
        process: ProcessId {
            pid: pid.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        is_zombie: matches!(fields.first(), Some(&("Z" | "X"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_contain_anything() {
        let line = "71 (a) S (b) Z 5 71 71 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        let expected = ProcessStat {
            process: ProcessId {
                pid: 71,
                start: 987_654,
            },
            parent: 5,
            is_zombie: true,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("71 (a"), None);
    }
}
