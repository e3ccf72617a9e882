//! Stays with the command from its start until it has ended and its output is read: copies the
//! output, forwards signals, executes control commands.
//!
//! Time: no limit while the command runs. After its end: the rest of the grace period of a
//! cancelled command and [`KILL_TIMEOUT`] for the processes that it started; [`PIPE_GRACE`] for
//! pipes that descendants hold open. A signal ends these waits.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runcast_common::protocol::event::StatusChange;
use runcast_publisher::Publisher;
use rustix::termios::isatty;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::child::{self, CommandStreams, StartedCommand};
use super::chunks::{ChunkSinks, STDERR, STDOUT, StreamSource};
use super::control::ControlCommands;
use super::copy_output::copy_output;
use super::description::CommandDescription;
use super::event_sink::DroppedEvents;
use super::output_limit::format_bytes;
use super::output_stream::OutputStream;
use super::parent_tty::RawMode;
use super::passthrough::Passthrough;
use super::process_tree::ProcessTree;
use super::pty::{Pty, TTY};
use super::reaper::Reaper;
use super::run::wait_for_end_signal;
use super::session_leader::CommandEnd;
use super::signals::{ReceivedSignal, Signals, send};
use super::stdin::{FOREGROUND_CHECK_INTERVAL, StdinForwarder};
use crate::console::print_message;

/// How long pipes are read after the command has ended, if descendants hold them open.
pub(super) const PIPE_GRACE: Duration = Duration::from_secs(2);

/// Longest wait for killed processes to end: some system calls cannot be interrupted.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// What must exist before the command is started.
pub(super) struct Supervisor {
    reaper: Reaper,
    processes: ProcessTree,
}

/// The command's terminal, and everything that belongs to it.
struct TerminalSession {
    end: CommandEnd,
    pty: Pty,
    stdin: StdinForwarder,
    /// The own stdin is a terminal.
    has_own_tty: bool,
    raw_mode: Option<RawMode>,
}

impl Supervisor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            reaper: Reaper::start()?,
            processes: ProcessTree::before_start(),
        })
    }

    /// Supervises the command. Returns the last event of the run, and the exit code.
    pub(super) async fn supervise(
        mut self,
        started: StartedCommand,
        description: &CommandDescription,
        publisher: Option<Publisher>,
        sinks: ChunkSinks,
        signals: &mut Signals,
        mut control: ControlCommands,
    ) -> io::Result<(StatusChange, u8)> {
        // 1. Publish the start, and connect the streams.
        let command = i32::try_from(started.pid).map_err(io::Error::other)?;
        let command = Pid::from_raw(command);
        self.processes.set_command(Some(command));
        if let Some(publisher) = &publisher {
            let first = child::started(&description.command, started.pid);
            if let Err(error) = publisher.status(&first).await {
                print_message(format_args!("the start is not published: {error}"));
            }
        }
        if let CommandStreams::Terminal(_, leader) = &started.streams {
            let leader = i32::try_from(leader.pid()).map_err(io::Error::other)?;
            self.processes.set_leader(leader);
        }
        let (streams, mut terminal) =
            connect_streams(started.streams, description, &sinks, publisher.is_some())?;
        let (deadline_in, deadline) = watch::channel(None);
        let copying = AbortOnDropHandle::new(tokio::spawn(copy_output(streams, deadline)));
        // 2. Until the command ends, handle signals and control commands.
        let status = loop {
            tokio::select! {
                biased;
                status = command_ended(&mut self.reaper, command, terminal.as_mut()) => break status?,
                received = signals.next() => {
                    handle_signal(received?, &self.processes, &mut control, terminal.as_mut())?;
                }
                () = sleep(FOREGROUND_CHECK_INTERVAL), if terminal.as_ref().is_some_and(TerminalSession::is_in_background) => {
                    if let Some(terminal) = &mut terminal {
                        terminal.enter_foreground()?;
                    }
                }
                next = control.next() => {
                    let input = terminal.as_ref().map(|terminal| terminal.stdin.input_handle());
                    control.execute(next, &self.processes, input);
                }
            }
        };
        // 3. End what a cancelled command left behind, and read the rest of the output.
        self.processes.set_command(None);
        if let Some(until) = control.cancelled_until() {
            self.end_descendants(until, signals).await?;
        }
        deadline_in.send_replace(Some(Instant::now() + PIPE_GRACE));
        let dropped: Vec<DroppedEvents> = tokio::select! {
            copied = copying => copied.map_err(io::Error::other)??,
            () = wait_for_end_signal(signals) => Vec::new(),
        };
        let (mut unpublished, left_out) = sinks.finish().await;
        dropped.into_iter().for_each(|more| unpublished.add(more));
        // 4. All output is read: hang up the terminal, answer commands, report what is missing.
        self.processes.end_session();
        drop(terminal);
        let (mut change, code) = child::ended(status);
        control.finish(&mut change).await;
        if let Some(missing) = missing_output(unpublished, left_out) {
            print_message(format_args!("{missing}"));
            change.message = Some(match change.message.take() {
                Some(message) => format!("{message}; {missing}"),
                None => missing,
            });
        }
        Ok((change, code))
    }

    /// Ends the processes that a cancelled command left behind.
    async fn end_descendants(&mut self, until: Instant, signals: &mut Signals) -> io::Result<()> {
        self.processes.terminate();
        tokio::select! {
            ended = self.reaper.until(|| self.processes.has_ended()) => return ended,
            () = sleep_until(until) => {}
            () = wait_for_end_signal(signals) => {}
        }
        self.processes.kill();
        match timeout(
            KILL_TIMEOUT,
            self.reaper.until(|| self.processes.has_ended()),
        )
        .await
        {
            Ok(ended) => ended,
            Err(_elapsed) => {
                tracing::warn!("some processes of the command could not be killed");
                Ok(())
            }
        }
    }
}

/// Describes what is missing of the output.
fn missing_output(unpublished: DroppedEvents, left_out: DroppedEvents) -> Option<String> {
    let mut parts = Vec::new();
    if unpublished.events > 0 {
        let DroppedEvents { events, bytes } = unpublished;
        parts.push(format!(
            "{events} events ({bytes} bytes) of its output were not published"
        ));
    }
    if left_out.events > 0 {
        let DroppedEvents { events, bytes } = left_out;
        parts.push(format!(
            "{events} events ({}) from the middle of its output were left out (--max-output)",
            format_bytes(bytes)
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Connects the streams of the command.
fn connect_streams(
    streams: CommandStreams,
    description: &CommandDescription,
    sinks: &ChunkSinks,
    is_published: bool,
) -> io::Result<(Vec<OutputStream>, Option<TerminalSession>)> {
    let stream = |from, own: Passthrough, source: StreamSource| {
        let redaction = description.stream(is_published);
        OutputStream::new(from, own, redaction, sinks.sink(source))
    };
    match streams {
        CommandStreams::Pipes { stdout, stderr } => {
            let stdout = stream(stdout, Passthrough::new(tokio::io::stdout()), STDOUT)?;
            let stderr = stream(stderr, Passthrough::new(tokio::io::stderr()), STDERR)?;
            Ok((vec![stdout, stderr], None))
        }
        CommandStreams::Terminal(terminal, leader) => {
            let tty = stream(
                terminal.try_clone()?,
                Passthrough::new(tokio::io::stdout()),
                TTY,
            )?;
            let mut terminal = TerminalSession {
                end: leader.command_end()?,
                stdin: StdinForwarder::new(terminal.try_clone()?)?,
                has_own_tty: isatty(io::stdin()),
                raw_mode: None,
                pty: terminal,
            };
            terminal.enter_foreground()?;
            Ok((vec![tty], Some(terminal)))
        }
    }
}

impl TerminalSession {
    /// Whether this process is in the background of its own terminal.
    fn is_in_background(&self) -> bool {
        self.has_own_tty && self.raw_mode.is_none()
    }

    /// Takes the own terminal, for the first time or again.
    fn enter_foreground(&mut self) -> io::Result<()> {
        match &self.raw_mode {
            Some(raw_mode) => raw_mode.reapply(),
            None => self.raw_mode = RawMode::enter()?,
        }
        self.pty.copy_own_size();
        Ok(())
    }
}

/// Waits for the end of the command, and reaps its orphans meanwhile. Cancel safe.
async fn command_ended(
    reaper: &mut Reaper,
    command: Pid,
    terminal: Option<&mut TerminalSession>,
) -> io::Result<ExitStatus> {
    let Some(terminal) = terminal else {
        return reaper.end_of(command).await;
    };
    tokio::select! {
        status = terminal.end.status() => status,
        // Only if the session leader is gone: it knows how the command ended.
        unknown = reaper.end_of(command) => unknown,
    }
}

/// Handles a signal while the command runs.
fn handle_signal(
    received: ReceivedSignal,
    processes: &ProcessTree,
    control: &mut ControlCommands,
    mut terminal: Option<&mut TerminalSession>,
) -> io::Result<()> {
    let ReceivedSignal { signal, to_group } = received;
    match &mut terminal {
        // The command's terminal notifies it.
        Some(terminal) if signal == Signal::SIGWINCH => terminal.pty.copy_own_size(),
        Some(_) => processes.signal_command(signal),
        None if !to_group => processes.signal_command(signal),
        None => {}
    }
    match signal {
        Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT => {
            control.resume_if_paused(processes);
        }
        // A terminal that stops the command stops its whole processes; SIGCONT resumes it.
        Signal::SIGTSTP => {
            if let Some(terminal) = terminal {
                terminal.raw_mode = None;
            }
            send(Pid::this(), Signal::SIGSTOP);
        }
        Signal::SIGCONT => {
            if let Some(terminal) = terminal {
                terminal.enter_foreground()?;
            }
        }
        _ => {}
    }
    Ok(())
}
