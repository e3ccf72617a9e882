//! Input of the command's terminal: the own stdin, and the texts of `input` commands, each as a
//! whole and in the order of arrival.
//!
//! At the end of the own stdin the key for it is typed (Ctrl-D; twice within a line), as a user
//! would; the terminal stays open, so `input` still works. The key is typed again when the terminal
//! switches between reading lines and reading keys, as shells do around each command, since a key
//! that waits through such a switch loses its meaning. A terminal keeps input until it is read.
//! While the command reads whole lines, the kernel keeps 4095 bytes of a line and drops the rest.
//!
//! Data: a queue of [`MAX_QUEUED_INPUTS`] of up to [`READ_BYTES`]; while it is full the own stdin
//! is not read. Time: a text has the deadline that comes with it, and is not typed after that. The
//! own stdin has none, since its writer would wait for the command too.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::fd_ready::watched;
use super::parent_tty::in_background;

/// Bytes per read of the own stdin: what a terminal holds.
const READ_BYTES: usize = 4096;

/// Reads and texts that wait to be typed.
const MAX_QUEUED_INPUTS: usize = 4;

/// How often the terminal is checked for a switch after the own stdin has ended: doubled from the
/// shortest to the longest interval while nothing changes.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often a background job checks whether it is in the foreground: no signal announces that.
pub(super) const FOREGROUND_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Longest line, without its end, that the kernel keeps while the command reads lines.
const MAX_LINE_BYTES: usize = 4095;

/// Why a text was not typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    #[error(
        "the command does not read its terminal: only {accepted} of {all} bytes were accepted in time"
    )]
    NotAccepted { accepted: usize, all: usize },
    #[error("a line of {0} bytes is too long for a terminal, which takes {MAX_LINE_BYTES}")]
    LineTooLong(usize),
    #[error("the command's terminal is closed")]
    Closed,
}

/// Input for the terminal.
#[derive(Debug)]
enum TerminalInput {
    Keys(Vec<u8>),
    /// The end of the own stdin.
    End,
    Text {
        text: Vec<u8>,
        until: Instant,
        typed: oneshot::Sender<Result<(), InputError>>,
    },
}

/// Types into one terminal.
#[derive(Debug)]
pub(crate) struct StdinForwarder {
    typed: mpsc::Sender<TerminalInput>,
    _typing: AbortOnDropHandle<()>,
}

/// A handle to type texts.
#[derive(Debug, Clone)]
pub(crate) struct InputHandle(mpsc::Sender<TerminalInput>);

impl StdinForwarder {
    /// Types into the terminal with this master side, which must be non-blocking. A thread reads
    /// the own stdin for as long as the process lives, since a read cannot be cancelled. Must be
    /// called within a tokio runtime.
    pub(crate) fn new(terminal: OwnedFd) -> io::Result<Self> {
        let terminal = watched(terminal, Interest::WRITABLE)?;
        let (typed, queue) = mpsc::channel(MAX_QUEUED_INPUTS);
        let stdin = typed.clone();
        let thread = thread::Builder::new().name("stdin".into());
        thread.spawn(move || forward_stdin(&stdin))?;
        let writer = PtyWriter {
            terminal,
            in_line: false,
            ended: None,
        };
        Ok(Self {
            typed,
            _typing: AbortOnDropHandle::new(tokio::spawn(writer.run(queue))),
        })
    }

    /// A handle to type texts besides the own stdin.
    pub(crate) fn input_handle(&self) -> InputHandle {
        InputHandle(self.typed.clone())
    }
}

impl InputHandle {
    /// Types a text, and waits until the terminal has accepted it. Text that was not accepted by
    /// the deadline is not typed later.
    pub(crate) async fn type_text(&self, text: &str, until: Instant) -> Result<(), InputError> {
        let all = text.len();
        let (typed, answer) = oneshot::channel();
        let text = TerminalInput::Text {
            text: text.as_bytes().to_vec(),
            until,
            typed,
        };
        let answered = async {
            let sent = self.0.send(text).await;
            sent.map_err(|_closed| InputError::Closed)?;
            answer.await.map_err(|_closed| InputError::Closed)?
        };
        // The writer, which knows how much it has written, stops at the same time. The slack is for
        // when it is still busy with earlier input.
        let slack = Duration::from_millis(500);
        timeout_at(until + slack, answered)
            .await
            .unwrap_or(Err(InputError::NotAccepted { accepted: 0, all }))
    }
}

fn forward_stdin(typed: &mpsc::Sender<TerminalInput>) {
    if let Err(error) = SigSet::from(Signal::SIGTTIN).thread_block() {
        return tracing::warn!(%error, "stdin is not read: SIGTTIN cannot be blocked");
    }
    let stdin = io::stdin();
    let mut buffer = [0; READ_BYTES];
    loop {
        let next = match rustix::io::read(&stdin, &mut buffer) {
            Ok(0) => TerminalInput::End,
            Ok(length) => TerminalInput::Keys(buffer[..length].to_vec()),
            Err(Errno::INTR) => continue,
            // Another process that shares it has made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => continue,
                    Err(error) => return tracing::warn!(%error, "stdin cannot be waited for"),
                }
            }
            // Another job uses the terminal; reading must not raise a signal.
            Err(Errno::IO) if in_background() => {
                thread::sleep(FOREGROUND_CHECK_INTERVAL);
                continue;
            }
            // The terminal is gone.
            Err(Errno::IO) => return,
            Err(error) => {
                tracing::warn!(%error, "stdin cannot be read any more");
                TerminalInput::End
            }
        };
        let is_end = matches!(next, TerminalInput::End);
        if typed.blocking_send(next).is_err() || is_end {
            return;
        }
    }
}

/// The terminal and the state of its input.
struct PtyWriter {
    terminal: AsyncFd<OwnedFd>,
    /// The last line is unfinished.
    in_line: bool,
    ended: Option<StdinEnd>,
}

/// The own stdin has ended.
#[derive(Debug, Clone, Copy)]
struct StdinEnd {
    /// Whether the terminal was read in lines when the end key was last typed.
    reads_lines: bool,
    check_interval: Duration,
}

impl PtyWriter {
    async fn run(mut self, mut queue: mpsc::Receiver<TerminalInput>) {
        loop {
            let interval = self
                .ended
                .map_or(Duration::MAX, |ended| ended.check_interval);
            let written = tokio::select! {
                biased;
                typed = queue.recv() => match typed {
                    Some(TerminalInput::Keys(keys)) => self.write(&keys, &mut 0).await,
                    Some(TerminalInput::End) => self.type_end().await,
                    Some(TerminalInput::Text { text, until, typed }) => self.type_text(&text, until, typed).await,
                    None => return,
                },
                () = sleep(interval), if self.ended.is_some() => self.retype_end().await,
            };
            // No process has the terminal open any more.
            if let Err(error) = written {
                return tracing::debug!(%error, "nothing can be typed any more");
            }
        }
    }

    async fn type_text(
        &mut self,
        text: &[u8],
        until: Instant,
        typed: oneshot::Sender<Result<(), InputError>>,
    ) -> io::Result<()> {
        if typed.is_closed() || until <= Instant::now() {
            return Ok(());
        }
        let longest = text.split(|&byte| byte == b'\n').map(<[u8]>::len).max();
        let (all, mut accepted) = (text.len(), 0);
        let (result, written) = match longest {
            Some(longest) if longest > MAX_LINE_BYTES && self.reads_lines()? => {
                (Err(InputError::LineTooLong(longest)), Ok(()))
            }
            _ => match timeout_at(until, self.write(text, &mut accepted)).await {
                Ok(Ok(())) => (Ok(()), Ok(())),
                Ok(Err(error)) => (Err(InputError::Closed), Err(error)),
                Err(_elapsed) => (Err(InputError::NotAccepted { accepted, all }), Ok(())),
            },
        };
        // The caller may have timed out at this moment; it then knows that the result is uncertain.
        drop(typed.send(result));
        written
    }

    /// Types the end key again if the way of reading has changed.
    async fn retype_end(&mut self) -> io::Result<()> {
        let reads_lines = self.reads_lines()?;
        match &mut self.ended {
            Some(ended) if ended.reads_lines == reads_lines => {
                ended.check_interval = (ended.check_interval * 2).min(MAX_CHECK_INTERVAL);
                Ok(())
            }
            _ => self.type_end().await,
        }
    }

    async fn type_end(&mut self) -> io::Result<()> {
        self.ended = Some(StdinEnd {
            reads_lines: self.reads_lines()?,
            check_interval: MIN_CHECK_INTERVAL,
        });
        let modes = tcgetattr(self.terminal.get_ref())?;
        let key = modes.special_codes[SpecialCodeIndex::VEOF];
        if key == 0 {
            return Ok(());
        }
        if self.in_line {
            // The first key flushes the unfinished line.
            self.write(&[key], &mut 0).await?;
        }
        self.write(&[key], &mut 0).await?;
        self.in_line = false;
        Ok(())
    }

    /// Whether the command reads whole lines, and not single keys.
    fn reads_lines(&self) -> io::Result<bool> {
        let modes = tcgetattr(self.terminal.get_ref())?;
        Ok(modes.local_modes.contains(LocalModes::ICANON))
    }

    async fn write(&mut self, mut bytes: &[u8], accepted: &mut usize) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |terminal: &OwnedFd| Ok(rustix::io::write(terminal, bytes)?);
            let written = self.terminal.async_io(Interest::WRITABLE, write).await?;
            self.in_line = bytes[..written].last() != Some(&b'\n');
            bytes = &bytes[written..];
            *accepted += written;
        }
        Ok(())
    }
}
