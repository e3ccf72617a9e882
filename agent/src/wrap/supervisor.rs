//! Stays with the command from its start until it has ended and its output is read: copies the
//! output, forwards signals, executes control commands.
//!
//! Time: no limit while the command runs. After its end: the rest of the grace period of a
//! cancelled command and [`KILL_TIMEOUT`] for the processes that it started; [`PIPE_GRACE`] for
//! streams that processes left behind hold open, which are then passed on. A signal ends these
//! waits. What was read is written to the own streams, without limit; after a signal within
//! [`WRITE_TIMEOUT`].

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runcast_common::protocol::event::StatusChange;
use runcast_publisher::Publisher;
use rustix::termios::isatty;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::child::{self, CommandExit, CommandStreams, StartedCommand};
use super::chunks::{ChunkSinks, STDERR, STDOUT, StreamSource};
use super::control::ControlCommands;
use super::copy_output::{CopiedOutput, copy_output};
use super::description::CommandDescription;
use super::event_sink::DroppedEvents;
use super::left_behind::{NO_LONGER_PUBLISHED, OpenStream};
use super::output_limit::format_bytes;
use super::output_stream::OutputStream;
use super::parent_tty::{RawMode, has_terminal};
use super::passthrough::Passthrough;
use super::process_tree::ProcessTree;
use super::pty::{Pty, TTY};
use super::reaper::{CommandChange, Reaper};
use super::run::wait_for_end_signal;
use super::session_leader::CommandEnd;
use super::signals::{Origin, ReceivedSignal, Signals, send};
use super::stdin::{FOREGROUND_CHECK_INTERVAL, StdinForwarder};
use crate::console::print_message;

/// How long streams are read and published after the command has ended, if processes left behind
/// hold them open.
pub(super) const PIPE_GRACE: Duration = Duration::from_secs(2);

/// Longest wait, after a signal, until what was read is written to the own streams.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

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

    /// Supervises the command. Returns the last event of the run, and how the command ended.
    pub(super) async fn supervise(
        mut self,
        started: StartedCommand,
        description: &CommandDescription,
        publisher: Option<Publisher>,
        sinks: ChunkSinks,
        signals: &mut Signals,
        mut control: ControlCommands,
    ) -> io::Result<(StatusChange, CommandExit)> {
        // 1. Publish the start, and connect the streams.
        let command = i32::try_from(started.pid).map_err(io::Error::other)?;
        let command = Pid::from_raw(command);
        self.processes.set_command(Some(command));
        if let Some(publisher) = &publisher {
            publish_start(publisher, description, started.pid).await;
        }
        if let CommandStreams::Terminal(_, leader, _) = &started.streams {
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
                change = command_change(&mut self.reaper, command, terminal.as_mut()) => match change? {
                    CommandChange::Ended(status) => break status,
                    CommandChange::Stopped(signal) => stop_with_command(signal),
                },
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
        let mut copied = read_rest(copying, &deadline_in, signals).await?;
        let is_open = !copied.open.is_empty();
        if is_open {
            print_message(format_args!("{NO_LONGER_PUBLISHED}"));
        }
        let (mut unpublished, left_out) =
            sinks.finish(is_open.then_some(NO_LONGER_PUBLISHED)).await;
        unpublished.add(copied.dropped);
        // 4. All output is read: pass on what is still open, or hang up the terminal; answer
        // commands; report what is missing.
        if !is_open {
            self.processes.end_session();
        }
        pass_on(std::mem::take(&mut copied.open), terminal);
        let (mut change, exit) = child::ended(status);
        control.finish(&mut change).await;
        let missing = missing_output(unpublished, left_out);
        let unwritten = copied.unwritten.as_ref();
        add_messages(&mut change, is_open, missing, unwritten);
        let with_unwritten = |error| exit.with_unwritten_output(error);
        Ok((change, unwritten.map_or(exit, with_unwritten)))
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

async fn publish_start(publisher: &Publisher, description: &CommandDescription, pid: u32) {
    let first = child::started(&description.command, pid);
    if let Err(error) = publisher.status(&first).await {
        print_message(format_args!("the start is not published: {error}"));
    }
}

/// Reads and publishes the rest of the output, as long as processes left behind may hold it open.
async fn read_rest(
    mut copying: AbortOnDropHandle<io::Result<CopiedOutput>>,
    deadline: &watch::Sender<Option<Instant>>,
    signals: &mut Signals,
) -> io::Result<CopiedOutput> {
    deadline.send_replace(Some(Instant::now() + PIPE_GRACE));
    tokio::select! {
        copied = &mut copying => return copied.map_err(io::Error::other)?,
        () = wait_for_end_signal(signals) => {}
    }
    deadline.send_replace(Some(Instant::now()));
    match timeout(WRITE_TIMEOUT, copying).await {
        Ok(copied) => copied.map_err(io::Error::other)?,
        Err(_elapsed) => Ok(CopiedOutput::default()),
    }
}

/// Passes on the streams that processes left behind hold open. A terminal is one stream, and its
/// session leader stays with it.
fn pass_on(open: Vec<OpenStream>, terminal: Option<TerminalSession>) {
    let leader = terminal.map(|terminal| terminal.end.into_reports());
    let passed_on = leader.transpose().and_then(|mut leader| {
        open.into_iter()
            .try_for_each(|stream| stream.pass_on(leader.take()))
    });
    if let Err(error) = passed_on {
        print_message(format_args!(
            "the output of processes that the command left behind is closed: {error}"
        ));
    }
}

/// Adds to the last event what happened to the output.
fn add_messages(
    change: &mut StatusChange,
    is_open: bool,
    missing: Option<String>,
    unwritten: Option<&io::Error>,
) {
    if let Some(missing) = &missing {
        print_message(format_args!("{missing}"));
    }
    let before = change.message.take();
    let open = is_open.then(|| NO_LONGER_PUBLISHED.to_owned());
    let unwritten = unwritten.map(|error| format!("its output could not be written: {error}"));
    let all: Vec<String> = [before, open, unwritten, missing]
        .into_iter()
        .flatten()
        .collect();
    change.message = (!all.is_empty()).then(|| all.join("; "));
}

/// Stops with the command, so that a shell notices that its job is stopped: SIGCONT to `runcast`
/// resumes both. Only if a terminal has stopped it: nothing else is sure to resume this process.
fn stop_with_command(signal: i32) {
    let by_terminal = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
    if by_terminal.iter().any(|one| *one as i32 == signal) && has_terminal() {
        send(Pid::this(), Signal::SIGSTOP);
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
            let streams = [(stdout, STDOUT), (stderr, STDERR)];
            let streams = streams
                .into_iter()
                .filter_map(|(pipe, source)| pipe.map(|(from, own)| stream(from, own, source)));
            Ok((streams.collect::<io::Result<_>>()?, None))
        }
        CommandStreams::Terminal(terminal, leader, own) => {
            let tty = stream(terminal.try_clone()?, own, TTY)?;
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

/// Waits until the command is stopped or has ended, and reaps its orphans meanwhile. Cancel safe.
async fn command_change(
    reaper: &mut Reaper,
    command: Pid,
    terminal: Option<&mut TerminalSession>,
) -> io::Result<CommandChange> {
    let Some(terminal) = terminal else {
        return reaper.change_of(command).await;
    };
    tokio::select! {
        status = terminal.end.status() => status.map(CommandChange::Ended),
        // Only if the session leader is gone: it knows how the command ended.
        unknown = reaper.change_of(command) => unknown,
    }
}

/// Handles a signal while the command runs.
fn handle_signal(
    received: ReceivedSignal,
    processes: &ProcessTree,
    control: &mut ControlCommands,
    mut terminal: Option<&mut TerminalSession>,
) -> io::Result<()> {
    let signal = received.signal();
    match (&mut terminal, received.origin) {
        (_, Origin::Own) => return Ok(()),
        // The command's terminal notifies it.
        (Some(terminal), _) if signal == Some(Signal::SIGWINCH) => terminal.pty.copy_own_size(),
        // It is in another session than the terminal of `runcast`.
        (Some(_), _) | (None, Origin::Process) => processes.forward(received.number),
        (None, Origin::Terminal) => {}
    }
    match (signal, terminal) {
        (Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT), _) => {
            control.resume_if_paused(processes);
        }
        // Without a terminal of its own, `runcast` stops when the command does.
        (Some(Signal::SIGTSTP), Some(terminal)) => {
            terminal.raw_mode = None;
            send(Pid::this(), Signal::SIGSTOP);
        }
        (Some(Signal::SIGCONT), Some(terminal)) => terminal.enter_foreground()?,
        _ => {}
    }
    Ok(())
}
