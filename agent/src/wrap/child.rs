//! The wrapped command as a process: how it is started, how it ended, and what that means for the
//! exit code and the status of the run.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};

use libc::{SIGPIPE, SIGXFSZ};
use runcast_common::config::Env;
use runcast_common::protocol::event::{Status, StatusChange};
use runcast_common::protocol::limits::MAX_NAME_BYTES;

use super::command_env::CommandEnv;
use super::own_streams::OwnStreams;
use super::passthrough::Passthrough;
use super::pty::Pty;
use super::session_leader::SessionLeader;
use super::startup::Startup;

/// Exit code of a command that was not found, as in shells.
const EXIT_NOT_FOUND: u8 = 127;

/// Exit code of a command that was found but cannot be run, as in shells.
const EXIT_NOT_EXECUTABLE: u8 = 126;

/// Exit code if the output of a command that succeeded was not written, as of `cat`.
const EXIT_NOT_WRITTEN: u8 = 1;

/// Length of a run's default name: as much of the command line as a list can show.
const MAX_DEFAULT_NAME_BYTES: usize = 80;

/// Limit for the command line in the first event; `xargs` builds lines that do not fit an event.
const MAX_COMMAND_BYTES: usize = 16 * 1024;

/// A started command.
#[derive(Debug)]
pub(crate) struct StartedCommand {
    pub(crate) pid: u32,
    pub(crate) streams: CommandStreams,
}

/// The streams of a command, each with the own stream that it is copied to.
#[derive(Debug)]
pub(crate) enum CommandStreams {
    Pipes {
        stdout: Option<(OwnedFd, Passthrough)>,
        stderr: Option<(OwnedFd, Passthrough)>,
    },
    Terminal(Pty, SessionLeader, Passthrough),
}

/// How the command ended, for the parent of `runcast`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandExit {
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// Starts the command in a terminal of its own.
pub(crate) fn spawn_in_terminal(
    command: &[OsString],
    own: OwnStreams,
    env: &impl Env,
    command_env: &CommandEnv,
    startup: &Startup,
) -> io::Result<StartedCommand> {
    let to = own
        .stdout
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let (terminal, leader, pid) = Pty::spawn(command, env, command_env, startup)?;
    let streams = CommandStreams::Terminal(terminal, leader, to);
    Ok(StartedCommand { pid, streams })
}

/// Starts the command with the stdin of `runcast` and pipes for its output.
pub(crate) fn spawn(
    command: &[OsString],
    own: OwnStreams,
    command_env: &CommandEnv,
    startup: &Startup,
) -> io::Result<StartedCommand> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let (stdout, to_stdout) = pipe_to(own.stdout)?;
    let (stderr, to_stderr) = pipe_to(own.stderr)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(to_stdout)
        .stderr(to_stderr);
    command_env.apply(&mut command);
    startup.hand_on(&mut command);
    // Only the reaper waits for it.
    let child = command.spawn()?;
    Ok(StartedCommand {
        pid: child.id(),
        streams: CommandStreams::Pipes { stdout, stderr },
    })
}

/// A pipe whose output is copied; without a copy the command inherits the own stream.
fn pipe_to(own: Option<Passthrough>) -> io::Result<(Option<(OwnedFd, Passthrough)>, Stdio)> {
    Ok(match own {
        Some(own) => {
            let (reader, writer) = io::pipe()?;
            (Some((reader.into(), own)), writer.into())
        }
        None => (None, Stdio::inherit()),
    })
}

/// Replaces this process by the command, if `runcast` itself cannot work. Returns why not.
pub(crate) fn replace_by(
    command: &[OsString],
    command_env: &CommandEnv,
    startup: &Startup,
) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::ErrorKind::NotFound.into();
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command_env.apply(&mut command);
    startup.hand_on(&mut command);
    command.exec()
}

/// The first event of a run.
pub(crate) fn started(command: &[OsString], pid: u32) -> StatusChange {
    let host = nix::unistd::gethostname().ok();
    StatusChange {
        command: command_words(command),
        host: host.map(|host| host.to_string_lossy().into_owned()),
        pid: Some(pid),
        ..StatusChange::to(Status::Running)
    }
}

/// The last event of a run, and how `runcast` ends.
pub(crate) fn ended(status: ExitStatus) -> (StatusChange, CommandExit) {
    let state = if status.success() {
        Status::Succeeded
    } else {
        Status::Failed
    };
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => CommandExit::Code(u8::try_from(code).unwrap_or(1)),
        (None, Some(signal)) => CommandExit::Signal(signal),
        (None, None) => CommandExit::Code(1),
    };
    let change = StatusChange {
        exit_code: status.code(),
        signal: status.signal(),
        ..StatusChange::to(state)
    };
    (change, exit)
}

impl CommandExit {
    /// The end of a command whose output could not be written for this reason, such as to a full
    /// disk. The command noticed at most a closed pipe.
    pub(crate) fn with_unwritten_output(self, error: &io::Error) -> Self {
        match self {
            Self::Code(0) | Self::Signal(SIGPIPE) => match error.kind() {
                io::ErrorKind::FileTooLarge => Self::Signal(SIGXFSZ),
                _ => Self::Code(EXIT_NOT_WRITTEN),
            },
            other => other,
        }
    }
}

/// The last event of a run whose command could not be started, and the exit code of `runcast`.
pub(crate) fn not_started(command: &[OsString], error: &io::Error) -> (StatusChange, u8) {
    let program = command.first().map(|name| name.to_string_lossy());
    let program = program.unwrap_or_default();
    let (code, message) = match error.kind() {
        io::ErrorKind::NotFound => (EXIT_NOT_FOUND, format!("{program}: command not found")),
        _ => (
            EXIT_NOT_EXECUTABLE,
            format!("{program}: cannot be run: {error}"),
        ),
    };
    let change = StatusChange {
        command: command_words(command),
        exit_code: Some(i32::from(code)),
        message: Some(message),
        ..StatusChange::to(Status::Failed)
    };
    (change, code)
}

/// The base name of the program.
pub(crate) fn program(command: &[OsString]) -> String {
    let program = command.first().map(|word| word.to_string_lossy());
    let program = program.unwrap_or_default();
    let base = program.rsplit('/').next().unwrap_or_default();
    shorten(base, MAX_DEFAULT_NAME_BYTES)
}

/// The default name of a run: the command's base name and its arguments, shortened.
pub(crate) fn default_name(command: &[OsString]) -> String {
    let mut words = command.iter().map(|word| word.to_string_lossy());
    let program = words.next().unwrap_or_default();
    let base = program.rsplit('/').next().unwrap_or(&program);
    let name = words.fold(base.to_owned(), |name, word| format!("{name} {word}"));
    // A name is one line.
    let name: String = name
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    shorten(name.trim(), MAX_DEFAULT_NAME_BYTES.min(MAX_NAME_BYTES))
}

/// Shortens a text to `max_bytes`, with an ellipsis if something was cut off.
fn shorten(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

fn command_words(command: &[OsString]) -> Vec<String> {
    let mut room = MAX_COMMAND_BYTES;
    let mut words = Vec::new();
    for (index, word) in command.iter().enumerate() {
        let word = word.to_string_lossy();
        if word.len() > room {
            words.push(shorten(&word, room));
            let rest = command.len() - index - 1;
            words.push(format!("… ({rest} more arguments)"));
            break;
        }
        room -= word.len();
        words.push(word.into_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_default_name_is_one_short_line() {
        assert_eq!(default_name(&command(&["/bin/seq", "0", "9"])), "seq 0 9");
        assert_eq!(
            default_name(&command(&["sh", "-c", "echo a\necho b"])),
            "sh -c echo a echo b"
        );
        let long = default_name(&command(&["echo", &"é".repeat(200)]));
        assert!(
            long.len() <= MAX_DEFAULT_NAME_BYTES && long.ends_with('…'),
            "{long}"
        );
    }

    #[test]
    fn the_end_of_the_command_is_that_of_the_program() {
        let (change, exit) = ended(ExitStatus::from_raw(3 << 8));
        assert_eq!(
            (change.status, change.exit_code, exit),
            (Status::Failed, Some(3), CommandExit::Code(3))
        );
        let (change, exit) = ended(ExitStatus::from_raw(9));
        assert_eq!(
            (change.exit_code, change.signal, exit),
            (None, Some(9), CommandExit::Signal(9))
        );
        let (change, exit) = ended(ExitStatus::from_raw(0));
        assert_eq!(
            (change.status, exit),
            (Status::Succeeded, CommandExit::Code(0))
        );
    }

    #[test]
    fn the_longest_command_line_fits_an_event() {
        let words = vec![OsString::from("x".repeat(1000)); 2000];
        let words = command_words(&words);
        assert_eq!(words.len(), 18);
        assert!(words.iter().map(String::len).sum::<usize>() < MAX_COMMAND_BYTES + 100);
        assert_eq!(words[17], "… (1983 more arguments)");
    }
}
