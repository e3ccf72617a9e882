//! One stream of the command on its way: read, passed through, redacted, cut into lines, published.
//!
//! Data: the redacted text of one read, and what the redaction and the [`LineSplitter`] hold. Time:
//! an unfinished line is published after [`UNFINISHED_LINE_WAIT`]. Meanwhile the redaction may hold
//! text back that may be the start of a secret, see [`RedactStream`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use runcast_redact::RedactStream;
use rustix::io::Errno;
use rustix::termios::isatty;
use tokio::time::Instant;

use super::chunks::ChunkSink;
use super::event_sink::DroppedEvents;
use super::line_splitter::LineSplitter;
use super::passthrough::Passthrough;

/// Time after which an unfinished line is published as it is: a prompt, a progress bar.
const UNFINISHED_LINE_WAIT: Duration = Duration::from_millis(100);

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadResult {
    /// Bytes, and there may be more.
    Some(usize),
    /// Bytes, and there are no more at the moment.
    Last(usize),
    /// Nothing at the moment.
    Nothing,
    /// The stream has ended.
    End,
}

/// One stream of the command.
#[derive(Debug)]
pub(crate) struct OutputStream {
    from: OwnedFd,
    /// A terminal returns at most some KiB per read, however much is waiting.
    is_terminal: bool,
    passthrough: Passthrough,
    redaction: RedactStream,
    lines: LineSplitter,
    sink: ChunkSink,
    flush_at: Option<Instant>,
    /// Redacted text of one read.
    redacted: Vec<u8>,
}

impl OutputStream {
    /// A stream from a pipe or from the master side of a terminal, which is made non-blocking.
    pub(crate) fn new(
        from: OwnedFd,
        passthrough: Passthrough,
        redaction: RedactStream,
        sink: ChunkSink,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&from, true)?;
        Ok(Self {
            is_terminal: isatty(&from),
            from,
            passthrough,
            redaction,
            lines: LineSplitter::default(),
            sink,
            flush_at: None,
            redacted: Vec::new(),
        })
    }

    /// The copy to the own stream of `runcast`.
    pub(crate) const fn passthrough(&self) -> &Passthrough {
        &self.passthrough
    }

    /// Reads without waiting.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        match rustix::io::read(&self.from, &mut *buffer) {
            Ok(0) => Ok(ReadResult::End),
            Ok(length) if length < buffer.len() && !self.is_terminal => {
                Ok(ReadResult::Last(length))
            }
            Ok(length) => Ok(ReadResult::Some(length)),
            Err(Errno::AGAIN) => Ok(ReadResult::Nothing),
            Err(Errno::INTR) => Ok(ReadResult::Some(0)),
            // The last process that had the terminal open has ended.
            Err(Errno::IO) if self.is_terminal => Ok(ReadResult::End),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes through and publishes bytes that were read.
    pub(crate) async fn process(&mut self, bytes: &[u8]) {
        self.passthrough.push(Bytes::copy_from_slice(bytes));
        self.redacted.clear();
        self.redaction
            .push(bytes, Instant::now(), &mut self.redacted);
        self.lines.push(&self.redacted);
        self.publish_lines().await;
        if self.lines.has_partial() {
            self.flush_at = self
                .flush_at
                .or_else(|| Some(Instant::now() + UNFINISHED_LINE_WAIT));
        }
    }

    /// When to call [`tick`](Self::tick); none if nothing waits.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let times = [self.flush_at, self.redaction.deadline()];
        times.into_iter().flatten().min()
    }

    /// Publishes text that has waited long enough.
    pub(crate) async fn tick(&mut self) {
        let now = Instant::now();
        if self.due_at().is_none_or(|due| due > now) {
            return;
        }
        self.redacted.clear();
        self.redaction.tick(now, &mut self.redacted);
        self.lines.push(&self.redacted);
        self.publish_lines().await;
        // Text that the redaction held back has waited already.
        if let Some(chunk) = self.lines.partial() {
            self.sink.publish(chunk).await;
        }
        self.flush_at = None;
    }

    /// Ends publishing, with what is left; without `keeps_source` it closes the stream before.
    /// Returns what could not be published, the stream, and the copy to the own stream, which may
    /// not be written yet.
    pub(crate) async fn finish(
        mut self,
        keeps_source: bool,
    ) -> (DroppedEvents, Option<OwnedFd>, Passthrough) {
        let from = Some(self.from).filter(|_| keeps_source);
        self.redacted.clear();
        self.redaction.finish(&mut self.redacted);
        self.lines.push(&self.redacted);
        while let Some(line) = self.lines.next_line() {
            self.sink.publish(line).await;
        }
        if let Some(rest) = self.lines.rest() {
            self.sink.publish(rest).await;
        }
        (self.sink.finish(), from, self.passthrough)
    }

    async fn publish_lines(&mut self) {
        while let Some(line) = self.lines.next_line() {
            self.sink.publish(line).await;
            self.flush_at = None;
        }
    }
}

impl AsFd for OutputStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}
