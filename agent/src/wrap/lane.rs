//! One stream of the wrapped command on its way: read, passed through, redacted, cut into lines,
//! published.
//!
//! Data: what is redacted of one read, and what the redaction and [`Lines`] hold. Time: a partial line is
//! published after [`PARTIAL`]; what may be the beginning of a secret is held back as
//! [`crate::redact`] says, at the same time as that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::termios::isatty;
use tokio::time::Instant;

use super::feed::{Dropped, Feed};
use super::lines::Lines;
use super::through::Through;
use crate::redact::Stream;

/// After so long a line without its end is shown as far as it is: a prompt, a progress bar.
const PARTIAL: Duration = Duration::from_millis(100);

/// What a read has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes, and there may be more.
    Some(usize),
    /// Bytes, and none behind them by now.
    Last(usize),
    /// Nothing for now.
    Nothing,
    /// The stream has ended.
    End,
}

/// One stream of the command.
#[derive(Debug)]
pub(crate) struct Lane {
    from: OwnedFd,
    /// It gives no more than some KiB at once, whatever waits behind them.
    is_terminal: bool,
    to: Through,
    redact: Stream,
    lines: Lines,
    feed: Feed,
    flush_at: Option<Instant>,
    clear: Vec<u8>,
}

impl Lane {
    /// A lane from a pipe or from the master side of a terminal, which is made non-blocking.
    pub(crate) fn new(from: OwnedFd, to: Through, redact: Stream, feed: Feed) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&from, true)?;
        Ok(Self {
            is_terminal: isatty(&from),
            from,
            to,
            redact,
            lines: Lines::default(),
            feed,
            flush_at: None,
            clear: Vec::new(),
        })
    }

    /// The way to our own stream.
    pub(crate) const fn to(&self) -> &Through {
        &self.to
    }

    /// Reads without waiting.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        match rustix::io::read(&self.from, &mut *buffer) {
            Ok(0) => Ok(Read::End),
            Ok(length) if length < buffer.len() && !self.is_terminal => Ok(Read::Last(length)),
            Ok(length) => Ok(Read::Some(length)),
            Err(Errno::AGAIN) => Ok(Read::Nothing),
            Err(Errno::INTR) => Ok(Read::Some(0)),
            // The last process that had the terminal open has ended.
            Err(Errno::IO) if self.is_terminal => Ok(Read::End),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes through and publishes what was read.
    pub(crate) async fn take(&mut self, bytes: &[u8]) {
        self.to.push(Bytes::copy_from_slice(bytes));
        self.clear.clear();
        self.redact.push(bytes, Instant::now(), &mut self.clear);
        self.lines.push(&self.clear);
        self.publish_lines().await;
        if self.lines.has_partial() {
            self.flush_at = self.flush_at.or_else(|| Some(Instant::now() + PARTIAL));
        }
    }

    /// When [`tick`](Self::tick) has something to do; never, if nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let times = [self.flush_at, self.redact.deadline()];
        times.into_iter().flatten().min()
    }

    /// Publishes what has waited for long enough.
    pub(crate) async fn tick(&mut self) {
        let now = Instant::now();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        self.clear.clear();
        self.redact.tick(now, &mut self.clear);
        self.lines.push(&self.clear);
        self.publish_lines().await;
        // What was held back has waited already.
        if let Some(chunk) = self.lines.partial() {
            self.feed.publish(chunk).await;
        }
        self.flush_at = None;
    }

    /// Closes the command's stream and publishes the rest; gives what could not be published, and the
    /// way to our own stream, on which something may still wait.
    pub(crate) async fn finish(mut self) -> (Dropped, Through) {
        drop(self.from);
        self.clear.clear();
        self.redact.finish(&mut self.clear);
        self.lines.push(&self.clear);
        while let Some(line) = self.lines.next_line() {
            self.feed.publish(line).await;
        }
        if let Some(rest) = self.lines.rest() {
            self.feed.publish(rest).await;
        }
        (self.feed.finish(), self.to)
    }

    async fn publish_lines(&mut self) {
        while let Some(line) = self.lines.next_line() {
            self.feed.publish(line).await;
            self.flush_at = None;
        }
    }
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}
