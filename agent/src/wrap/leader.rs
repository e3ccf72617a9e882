//! The leader of the session that a command with `--tty` runs in: this program once more, as
//! `runcast session -- CMD`.
//!
//! When the leader of a session ends, the kernel hangs up its terminal and throws away what has been written to
//! it and not been read. Were the command the leader, its last words would be lost now and then. So the leader is a
//! process that starts the command, says what becomes of it, and stays until it is killed, when everything has been
//! read. It also dies with us, whatever ends us; that hangs up the terminal, and the command gets SIGHUP as when a
//! window is closed.
//!
//! What it says goes over a pipe, its stderr, in lines: `started PID` or `failed ERRNO`, then `ended STATUS`, the
//! status as `wait` gives it. Time: [`START`] until the first line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use pty_process::blocking::Pts;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;

use super::signals::block;

/// Longest wait for the program to start once more: seconds on a machine that is busy or short of memory.
const START: Duration = Duration::from_secs(30);

/// Bytes of its longest line.
const LINE_BYTES: usize = 64;

/// The leader of a session, seen from us.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: u32,
    said: PipeReader,
}

/// How the command ended, as its leader says.
#[derive(Debug)]
pub(crate) struct Ending(BufReader<Receiver>);

impl Leader {
    /// Starts the command in a session with this terminal; gives its process id.
    ///
    /// # Errors
    /// The command's own, as if we had started it, or that the leader could not be started.
    pub(crate) fn start(
        command: &[OsString],
        terminal: Pts,
        settings: &[(&str, &str)],
    ) -> io::Result<(Self, u32)> {
        let (said, says) = io::pipe()?;
        let mut program = Command::new("/proc/self/exe");
        program
            .arg0("runcast")
            .args(["session", "--"])
            .args(command)
            .envs(settings.iter().copied());
        let leader = pty_process::blocking::Command::from(program).stderr(OwnedFd::from(says));
        let child = leader.spawn(terminal).map_err(|error| {
            io::Error::other(format!(
                "the leader of its session cannot be started: {error}"
            ))
        })?;
        let mut leader = Self {
            pid: child.id(),
            said,
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
                "the leader of its session says {line:?}"
            ))),
        }
    }

    /// Its process id.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the rest of what it says. Must be called within a tokio runtime.
    pub(crate) fn ending(self) -> io::Result<Ending> {
        let said = Receiver::from_owned_fd(OwnedFd::from(self.said))?;
        Ok(Ending(BufReader::with_capacity(LINE_BYTES, said)))
    }

    /// Read byte by byte, so that nothing behind it is taken.
    fn first_line(&mut self) -> io::Result<String> {
        let deadline = Timespec::try_from(START).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&self.said, PollFlags::IN)];
        if poll(&mut wanted, Some(&deadline))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < LINE_BYTES && self.said.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(io::Error::other)
    }
}

impl Ending {
    /// Waits for the command's end; for ever, if the leader was killed before: then the command is our own child. Can
    /// be dropped at any time and be called again.
    ///
    /// # Errors
    /// If the pipe cannot be read, or holds something else.
    pub(crate) async fn status(&mut self) -> io::Result<ExitStatus> {
        // Short enough to be written, and so read, at once.
        let line = self.0.fill_buf().await?;
        if line.is_empty() {
            return std::future::pending().await;
        }
        let line = String::from_utf8_lossy(line);
        let status = line.strip_prefix("ended ").map(str::trim);
        let status = status.and_then(|status| status.parse().ok());
        let unknown = || io::Error::other(format!("the leader of its session says {line:?}"));
        status.map(ExitStatus::from_raw).ok_or_else(unknown)
    }
}

/// Leads the session that this process was started in, by [`Leader::start`]. Comes back only where that has failed.
///
/// # Errors
/// If we were not started like that, or the command cannot be started; that is said to who started us.
pub fn lead(command: &[OsString]) -> io::Result<()> {
    let mut says = io::stderr();
    let result = start_and_wait(command, &mut says);
    if let Err(error) = &result {
        let code = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        say(&mut says, "failed", code)?;
    }
    result
}

fn start_and_wait(command: &[OsString], says: &mut impl io::Write) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    // What the terminal sends is for the command.
    let blocked = block()?;
    let terminal = io::stdout().as_fd().try_clone_to_owned()?;
    let start = || {
        Command::new(program)
            .args(arguments)
            .stderr(terminal)
            .spawn()
    };
    let mut child = blocked.let_through(start)??;
    // Only the command and what it starts shall have the terminal open, so that its end can be seen.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    say(says, "started", child.id())?;
    let status = child.wait()?;
    say(says, "ended", status.into_raw())?;
    loop {
        std::thread::park();
    }
}

/// A line, in one write.
fn say(to: &mut impl io::Write, what: &str, number: impl std::fmt::Display) -> io::Result<()> {
    to.write_all(format!("{what} {number}\n").as_bytes())
}
