//! Stays with the command from its start until it has ended and what it wrote is read: moves its output, passes
//! signals on, carries out orders.
//!
//! Time: none while the command runs. After its end: what is left of the grace period of a cancelled command,
//! and [`KILLED`], for what it has started; [`PIPE_GRACE`] for pipes that descendants hold open. A signal ends
//! these waits.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runcast_common::protocol::event::StatusChange;
use rustix::termios::isatty;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::cap::in_words;
use super::child::{self, Started, Streams};
use super::feed::{Dropped, Feeds, STDERR, STDOUT, Source};
use super::job::Job;
use super::keyboard::{BACKGROUND_LOOK, Keyboard};
use super::lane::Lane;
use super::leader::Ending;
use super::orders::Orders;
use super::own_terminal::RawMode;
use super::pump::pump;
use super::reaper::Reaper;
use super::shown::Shown;
use super::signals::{Arrived, Signals, send};
use super::terminal::{TTY, Terminal};
use super::through::Through;
use super::told_to_end;
use crate::publisher::Publisher;
use crate::say;

/// How long the command's pipes are read after its end, where descendants hold them open.
pub(super) const PIPE_GRACE: Duration = Duration::from_secs(2);

/// Longest wait for processes to end that have been killed: some system calls cannot be interrupted.
const KILLED: Duration = Duration::from_secs(2);

/// What has to be there before the command is started.
pub(super) struct Watch {
    reaper: Reaper,
    job: Job,
}

/// The command's terminal, with all that belongs to it on our side.
struct Screen {
    ending: Ending,
    terminal: Terminal,
    keyboard: Keyboard,
    /// Our stdin is a terminal.
    has_own: bool,
    raw: Option<RawMode>,
}

impl Watch {
    pub(super) fn before_start() -> io::Result<Self> {
        Ok(Self {
            reaper: Reaper::start()?,
            job: Job::none(),
        })
    }

    /// Watches over the command; gives the last event of its run, and our exit code.
    pub(super) async fn over(
        mut self,
        started: Started,
        shown: &Shown,
        publisher: Option<Publisher>,
        feeds: Feeds,
        signals: &mut Signals,
        mut orders: Orders,
    ) -> io::Result<(StatusChange, u8)> {
        let command = i32::try_from(started.pid).map_err(io::Error::other)?;
        let command = Pid::from_raw(command);
        self.job.set_command(Some(command));
        if let Some(publisher) = &publisher {
            let first = child::started(&shown.command, started.pid);
            if let Err(error) = publisher.status(&first).await {
                say(format_args!("not published: {error}"));
            }
        }
        if let Streams::Terminal(_, leader) = &started.streams {
            let leader = i32::try_from(leader.pid()).map_err(io::Error::other)?;
            self.job.set_leader(leader);
        }
        let (lanes, mut screen) = lanes(started.streams, shown, &feeds, publisher.is_some())?;
        let (deadline_in, deadline) = watch::channel(None);
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(lanes, deadline)));
        let status = loop {
            tokio::select! {
                biased;
                status = ended(&mut self.reaper, command, screen.as_mut()) => break status?,
                arrived = signals.next() => {
                    pass_on(arrived?, &self.job, &mut orders, screen.as_mut())?;
                }
                () = sleep(BACKGROUND_LOOK), if screen.as_ref().is_some_and(Screen::is_hidden) => {
                    if let Some(screen) = &mut screen {
                        screen.shown()?;
                    }
                }
                order = orders.next() => {
                    let hand = screen.as_ref().map(|screen| screen.keyboard.hand());
                    orders.carry_out(order, &self.job, hand);
                }
            }
        };
        self.job.set_command(None);
        if let Some(until) = orders.cancelled_until() {
            self.end_rest(until, signals).await?;
        }
        deadline_in.send_replace(Some(Instant::now() + PIPE_GRACE));
        let dropped: Vec<Dropped> = tokio::select! {
            moved = pump => moved.map_err(io::Error::other)??,
            () = told_to_end(signals) => Vec::new(),
        };
        let (mut unpublished, left_out) = feeds.finish().await;
        dropped.into_iter().for_each(|more| unpublished.add(more));
        // With nothing left to be read, the terminal can be hung up.
        self.job.end_session();
        drop(screen);
        let (mut change, code) = child::ended(status);
        orders.finish(&mut change).await;
        if let Some(missing) = missing(unpublished, left_out) {
            say(format_args!("{missing}"));
            change.message = Some(match change.message.take() {
                Some(message) => format!("{message}; {missing}"),
                None => missing,
            });
        }
        Ok((change, code))
    }

    /// Ends what a cancelled command has left behind.
    async fn end_rest(&mut self, until: Instant, signals: &mut Signals) -> io::Result<()> {
        self.job.end();
        tokio::select! {
            ended = self.reaper.until(|| self.job.is_over()) => return ended,
            () = sleep_until(until) => {}
            () = told_to_end(signals) => {}
        }
        self.job.kill();
        match timeout(KILLED, self.reaper.until(|| self.job.is_over())).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                tracing::warn!("not everything that the command has started can be killed");
                Ok(())
            }
        }
    }
}

/// What of the output is missing, in words.
fn missing(unpublished: Dropped, left_out: Dropped) -> Option<String> {
    let mut parts = Vec::new();
    if unpublished.events > 0 {
        let Dropped { events, bytes } = unpublished;
        parts.push(format!(
            "{events} events ({bytes} bytes) of its output were not published"
        ));
    }
    if left_out.events > 0 {
        let Dropped { events, bytes } = left_out;
        parts.push(format!(
            "{events} events ({}) from the middle of its output were left out (--max-output)",
            in_words(bytes)
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The streams of the command on their way to ours.
fn lanes(
    streams: Streams,
    shown: &Shown,
    feeds: &Feeds,
    is_published: bool,
) -> io::Result<(Vec<Lane>, Option<Screen>)> {
    let lane = |from, own: Through, source: Source| {
        let redact = shown.stream(is_published);
        Lane::new(from, own, redact, feeds.feed(source))
    };
    match streams {
        Streams::Pipes { stdout, stderr } => {
            let stdout = lane(stdout, Through::to(tokio::io::stdout()), STDOUT)?;
            let stderr = lane(stderr, Through::to(tokio::io::stderr()), STDERR)?;
            Ok((vec![stdout, stderr], None))
        }
        Streams::Terminal(terminal, leader) => {
            let lane = lane(terminal.try_clone()?, Through::to(tokio::io::stdout()), TTY)?;
            let mut screen = Screen {
                ending: leader.ending()?,
                keyboard: Keyboard::at(terminal.try_clone()?)?,
                has_own: isatty(io::stdin()),
                raw: None,
                terminal,
            };
            screen.shown()?;
            Ok((vec![lane], Some(screen)))
        }
    }
}

impl Screen {
    /// True if we are in the background of our own terminal.
    fn is_hidden(&self) -> bool {
        self.has_own && self.raw.is_none()
    }

    /// Our own terminal may be ours, for now or again.
    fn shown(&mut self) -> io::Result<()> {
        match &self.raw {
            Some(raw) => raw.again(),
            None => self.raw = RawMode::enter()?,
        }
        self.terminal.follow_size();
        Ok(())
    }
}

/// Waits for the end of the command, and collects its orphans meanwhile. Can be dropped at any time.
async fn ended(
    reaper: &mut Reaper,
    command: Pid,
    screen: Option<&mut Screen>,
) -> io::Result<ExitStatus> {
    let Some(screen) = screen else {
        return reaper.end_of(command).await;
    };
    tokio::select! {
        status = screen.ending.status() => status,
        // Not before the leader of its session, which says how it ended.
        unknown = reaper.end_of(command) => unknown,
    }
}

/// Does with a signal what is to be done while the command runs.
fn pass_on(
    arrived: Arrived,
    job: &Job,
    orders: &mut Orders,
    mut screen: Option<&mut Screen>,
) -> io::Result<()> {
    let Arrived { signal, to_group } = arrived;
    match &mut screen {
        // Its own terminal tells the command.
        Some(screen) if signal == Signal::SIGWINCH => screen.terminal.follow_size(),
        Some(_) => job.tell(signal),
        None if !to_group => job.tell(signal),
        None => {}
    }
    match signal {
        Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT => orders.wake(job),
        // A terminal that stops the command stops its whole job; SIGCONT wakes it again.
        Signal::SIGTSTP => {
            if let Some(screen) = screen {
                screen.raw = None;
            }
            send(Pid::this(), Signal::SIGSTOP);
        }
        Signal::SIGCONT => {
            if let Some(screen) = screen {
                screen.shown()?;
            }
        }
        _ => {}
    }
    Ok(())
}
