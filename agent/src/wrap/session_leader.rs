//! The leader of the session that a command with `--tty` runs in: this program again, as `runcast
//! session -- CMD`.
//!
//! When a session leader ends, the kernel hangs up its terminal and discards output that was not
//! read. If the command were the leader, its last output would sometimes be lost. So the leader is
//! a process that starts the command, reports what becomes of it, and stays until it is killed,
//! once everything has been read. It also dies with `runcast`, however that ends; the terminal then
//! hangs up, and the command gets SIGHUP as when a window is closed.
//!
//! It reports over a pipe, its stderr, in lines: `started PID` or `failed ERRNO`, then `ended
//! STATUS`, with the status as `wait` returns it. After that it stays as long as a process has the
//! reading end open: `runcast`, or the one that passes on what the command left behind. Time:
//! [`START_TIMEOUT`] until the first line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use libc::SIGCHLD;
use pty_process::blocking::Pts;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;

use super::command_env::CommandEnv;
use super::startup::{Startup, reset_signal};

/// Longest wait for the leader to start: seconds on a machine that is busy or short of memory.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest line of a report.
const MAX_LINE_BYTES: usize = 64;

/// The leader of a session, as its parent sees it.
#[derive(Debug)]
pub(crate) struct SessionLeader {
    pid: u32,
    reports: PipeReader,
}

/// The leader's report of how the command ended.
#[derive(Debug)]
pub(crate) struct CommandEnd(BufReader<Receiver>);

impl SessionLeader {
    /// Starts the command in a session with this terminal. Returns its process id. Fails like a
    /// direct start of the command, or if the leader cannot be started.
    pub(crate) fn start(
        command: &[OsString],
        terminal: Pts,
        settings: &[(&str, &str)],
        command_env: &CommandEnv,
        startup: &Startup,
    ) -> io::Result<(Self, u32)> {
        let (reports, report) = io::pipe()?;
        let mut program = Command::new("/proc/self/exe");
        program
            .arg0("runcast")
            .args(["session", "--"])
            .args(command)
            .envs(settings.iter().copied());
        command_env.apply(&mut program);
        startup.hand_on(&mut program);
        let leader = pty_process::blocking::Command::from(program).stderr(OwnedFd::from(report));
        let child = leader.spawn(terminal).map_err(|error| {
            io::Error::other(format!("the session leader cannot be started: {error}"))
        })?;
        let mut leader = Self {
            pid: child.id(),
            reports,
        };
        let line = leader.first_line()?;
        let number = |text: &str| text.trim().parse::<i32>().map_err(io::Error::other);
        match line.split_once(' ') {
            Some(("started", pid)) => {
                let pid = u32::try_from(number(pid)?).map_err(io::Error::other)?;
                Ok((leader, pid))
            }
            Some(("failed", code)) => Err(io::Error::from_raw_os_error(number(code)?)),
            _ => Err(io::Error::other(format!(
                "the session leader sent an unknown report: {line:?}"
            ))),
        }
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Prepares to wait for the second report. Must be called within a tokio runtime.
    pub(crate) fn command_end(self) -> io::Result<CommandEnd> {
        let reports = Receiver::from_owned_fd(OwnedFd::from(self.reports))?;
        Ok(CommandEnd(BufReader::with_capacity(
            MAX_LINE_BYTES,
            reports,
        )))
    }

    /// Reads byte by byte, so that nothing behind the line is consumed.
    fn first_line(&mut self) -> io::Result<String> {
        let deadline = Timespec::try_from(START_TIMEOUT).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.reports, PollFlags::IN)];
        if poll(&mut fds, Some(&deadline))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < MAX_LINE_BYTES && self.reports.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(io::Error::other)
    }
}

impl CommandEnd {
    /// The pipe that keeps the leader alive.
    pub(crate) fn into_reports(self) -> io::Result<OwnedFd> {
        self.0.into_inner().into_blocking_fd()
    }

    /// Waits for the end of the command; forever, if the leader was killed before, because the
    /// command is then a child of `runcast`. Cancel safe, and can be called again.
    pub(crate) async fn status(&mut self) -> io::Result<ExitStatus> {
        // The line is short enough to be written, and therefore read, at once.
        let line = self.0.fill_buf().await?;
        if line.is_empty() {
            return std::future::pending().await;
        }
        let line = String::from_utf8_lossy(line);
        let status = line.strip_prefix("ended ").map(str::trim);
        let status = status.and_then(|status| status.parse().ok());
        let unknown = || {
            io::Error::other(format!(
                "the session leader sent an unknown report: {line:?}"
            ))
        };
        status.map(ExitStatus::from_raw).ok_or_else(unknown)
    }
}

/// Leads the session that this process was started in by [`SessionLeader::start`]. Returns when it
/// is not needed any more, or after an error, which it also reports to the parent.
pub fn lead_session(command: &[OsString]) -> io::Result<()> {
    let mut report = io::stderr();
    let result = start_and_wait(command, &mut report);
    if let Err(error) = &result {
        let code = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        write_report(&mut report, "failed", code)?;
    }
    result
}

fn start_and_wait(command: &[OsString], report: &mut io::Stderr) -> io::Result<()> {
    // Signals of the terminal are for the command.
    let mut startup = Startup::record()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If it is ignored, the status of the command is lost.
    reset_signal(SIGCHLD);
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let terminal = io::stdout().as_fd().try_clone_to_owned()?;
    let mut command = Command::new(program);
    command.args(arguments).stderr(terminal);
    startup.hand_on(&mut command);
    let mut child = command.spawn()?;
    // Only the command and its descendants may have the terminal open, so that their end can be
    // observed.
    drop(command);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    startup.close_descriptors();
    write_report(report, "started", child.id())?;
    let status = child.wait()?;
    set_parent_process_death_signal(None)?;
    write_report(report, "ended", status.into_raw())?;
    loop {
        let mut fds = [PollFd::new(report, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().contains(PollFlags::ERR) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a line with one call.
fn write_report(
    to: &mut impl io::Write,
    what: &str,
    number: impl std::fmt::Display,
) -> io::Result<()> {
    to.write_all(format!("{what} {number}\n").as_bytes())
}
