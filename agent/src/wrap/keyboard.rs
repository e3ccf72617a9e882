//! What is typed at the command's terminal: our own stdin, and the text of `input` commands, each whole and in the
//! order in which they came.
//!
//! The end of our stdin becomes the key for it (Ctrl-D; twice where a line was begun), as if somebody had typed
//! it; the terminal stays open, so `input` still works. The key is typed again when the terminal changes between
//! reading lines and reading keys, as a shell does around each command, since a key that waits
//! through such a change loses its meaning. A terminal keeps what is typed until it is read. Where the
//! command reads whole lines, the kernel keeps 4095 bytes of one and drops the rest of it.
//!
//! Data: a queue of [`WAITING`] reads of [`READ_BYTES`]; while it is full our stdin is not read. Time: a text has
//! the deadline that comes with it and is not typed after that; our stdin has none, since whoever writes
//! to it would wait for the command as well.

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

use super::descriptor::watched;
use super::own_terminal::in_background;

/// Bytes of one read of our stdin: what a terminal holds.
const READ_BYTES: usize = 4096;

/// Reads and texts that may wait to be typed.
const WAITING: usize = 4;

/// How often it is looked whether the terminal has changed, once our stdin has ended: from the one, doubled
/// while nothing happens, to the other.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often a job in the background looks whether it has been fetched to the foreground: no signal says so.
pub(super) const BACKGROUND_LOOK: Duration = Duration::from_millis(500);

/// Most bytes of a line that is read as a whole, without its end: what the kernel has room for.
const LINE_BYTES: usize = 4095;

/// Why a text was not typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTyped {
    #[error("the command does not read its terminal: {taken} of {all} bytes were taken in time")]
    Busy { taken: usize, all: usize },
    #[error("a line of {0} bytes is too long for a terminal, which takes {LINE_BYTES}")]
    LineTooLong(usize),
    #[error("the command's terminal is closed")]
    Closed,
}

/// What is typed.
#[derive(Debug)]
enum Typed {
    Keys(Vec<u8>),
    /// The end of our stdin.
    End,
    Text {
        text: Vec<u8>,
        until: Instant,
        typed: oneshot::Sender<Result<(), NotTyped>>,
    },
}

/// Types at one terminal.
#[derive(Debug)]
pub(crate) struct Keyboard {
    typed: mpsc::Sender<Typed>,
    _typing: AbortOnDropHandle<()>,
}

/// A way to type a text.
#[derive(Debug, Clone)]
pub(crate) struct Hand(mpsc::Sender<Typed>);

impl Keyboard {
    /// A keyboard of the terminal with this master side, which must be non-blocking. Our stdin is read by a thread
    /// that lives as long as the process, since a read cannot be called off. Must be called within a tokio runtime.
    pub(crate) fn at(terminal: OwnedFd) -> io::Result<Self> {
        let terminal = watched(terminal, Interest::WRITABLE)?;
        let (typed, waiting) = mpsc::channel(WAITING);
        let stdin = typed.clone();
        let thread = thread::Builder::new().name("keyboard".into());
        thread.spawn(move || forward_stdin(&stdin))?;
        let writer = Writer {
            terminal,
            in_line: false,
            ended: None,
        };
        Ok(Self {
            typed,
            _typing: AbortOnDropHandle::new(tokio::spawn(writer.run(waiting))),
        })
    }

    /// A way to type besides our stdin.
    pub(crate) fn hand(&self) -> Hand {
        Hand(self.typed.clone())
    }
}

impl Hand {
    /// Types a text and waits until the terminal has taken it.
    ///
    /// # Errors
    /// [`NotTyped`]; what was not taken until then is not typed later.
    pub(crate) async fn type_text(&self, text: &str, until: Instant) -> Result<(), NotTyped> {
        let all = text.len();
        let (typed, answer) = oneshot::channel();
        let text = Typed::Text {
            text: text.as_bytes().to_vec(),
            until,
            typed,
        };
        let answered = async {
            let sent = self.0.send(text).await;
            sent.map_err(|_closed| NotTyped::Closed)?;
            answer.await.map_err(|_closed| NotTyped::Closed)?
        };
        // The writer, which knows how much it has written, gives up at the same time; it is waited for in the
        // case that it is still busy with what was typed before.
        let slack = Duration::from_millis(500);
        timeout_at(until + slack, answered)
            .await
            .unwrap_or(Err(NotTyped::Busy { taken: 0, all }))
    }
}

fn forward_stdin(typed: &mpsc::Sender<Typed>) {
    if let Err(error) = SigSet::from(Signal::SIGTTIN).thread_block() {
        return tracing::warn!(%error, "stdin is not read: SIGTTIN cannot be blocked");
    }
    let stdin = io::stdin();
    let mut buffer = [0; READ_BYTES];
    loop {
        let next = match rustix::io::read(&stdin, &mut buffer) {
            Ok(0) => Typed::End,
            Ok(length) => Typed::Keys(buffer[..length].to_vec()),
            Err(Errno::INTR) => continue,
            // Somebody who shares it has made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut wanted = [PollFd::new(&stdin, PollFlags::IN)];
                match poll(&mut wanted, None) {
                    Ok(_) | Err(Errno::INTR) => continue,
                    Err(error) => return tracing::warn!(%error, "stdin cannot be waited for"),
                }
            }
            // Somebody else is at our terminal; we want no signal for asking.
            Err(Errno::IO) if in_background() => {
                thread::sleep(BACKGROUND_LOOK);
                continue;
            }
            // It is gone.
            Err(Errno::IO) => return,
            Err(error) => {
                tracing::warn!(%error, "stdin cannot be read any more");
                Typed::End
            }
        };
        let is_end = matches!(next, Typed::End);
        if typed.blocking_send(next).is_err() || is_end {
            return;
        }
    }
}

/// The terminal, and where it stands.
struct Writer {
    terminal: AsyncFd<OwnedFd>,
    /// A line was begun and not ended.
    in_line: bool,
    ended: Option<Ended>,
}

/// Our stdin has ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    /// How the terminal was read when that was typed last.
    in_lines: bool,
    next_look: Duration,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Typed>) {
        loop {
            let look = self.ended.map_or(Duration::MAX, |ended| ended.next_look);
            let written = tokio::select! {
                biased;
                typed = waiting.recv() => match typed {
                    Some(Typed::Keys(keys)) => self.write(&keys, &mut 0).await,
                    Some(Typed::End) => self.end().await,
                    Some(Typed::Text { text, until, typed }) => self.text(&text, until, typed).await,
                    None => return,
                },
                () = sleep(look), if self.ended.is_some() => self.end_again().await,
            };
            // Nobody has the terminal open any more.
            if let Err(error) = written {
                return tracing::debug!(%error, "nothing can be typed any more");
            }
        }
    }

    async fn text(
        &mut self,
        text: &[u8],
        until: Instant,
        typed: oneshot::Sender<Result<(), NotTyped>>,
    ) -> io::Result<()> {
        if typed.is_closed() || until <= Instant::now() {
            return Ok(());
        }
        let longest = text.split(|&byte| byte == b'\n').map(<[u8]>::len).max();
        let (all, mut taken) = (text.len(), 0);
        let (result, written) = match longest {
            Some(longest) if longest > LINE_BYTES && self.reads_lines()? => {
                (Err(NotTyped::LineTooLong(longest)), Ok(()))
            }
            _ => match timeout_at(until, self.write(text, &mut taken)).await {
                Ok(Ok(())) => (Ok(()), Ok(())),
                Ok(Err(error)) => (Err(NotTyped::Closed), Err(error)),
                Err(_elapsed) => (Err(NotTyped::Busy { taken, all }), Ok(())),
            },
        };
        // Who asked may have given up in this moment; it was told that nothing is certain.
        drop(typed.send(result));
        written
    }

    /// Types the end again if the terminal is read in another way by now.
    async fn end_again(&mut self) -> io::Result<()> {
        let in_lines = self.reads_lines()?;
        match &mut self.ended {
            Some(ended) if ended.in_lines == in_lines => {
                ended.next_look = (ended.next_look * 2).min(LOOK.1);
                Ok(())
            }
            _ => self.end().await,
        }
    }

    async fn end(&mut self) -> io::Result<()> {
        self.ended = Some(Ended {
            in_lines: self.reads_lines()?,
            next_look: LOOK.0,
        });
        let modes = tcgetattr(self.terminal.get_ref())?;
        let key = modes.special_codes[SpecialCodeIndex::VEOF];
        if key == 0 {
            return Ok(());
        }
        if self.in_line {
            // The first gives out the line as far as it is.
            self.write(&[key], &mut 0).await?;
        }
        self.write(&[key], &mut 0).await?;
        self.in_line = false;
        Ok(())
    }

    /// True if the command reads whole lines, and not key by key.
    fn reads_lines(&self) -> io::Result<bool> {
        let modes = tcgetattr(self.terminal.get_ref())?;
        Ok(modes.local_modes.contains(LocalModes::ICANON))
    }

    async fn write(&mut self, mut bytes: &[u8], taken: &mut usize) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |terminal: &OwnedFd| Ok(rustix::io::write(terminal, bytes)?);
            let written = self.terminal.async_io(Interest::WRITABLE, write).await?;
            self.in_line = bytes[..written].last() != Some(&b'\n');
            bytes = &bytes[written..];
            *taken += written;
        }
        Ok(())
    }
}
