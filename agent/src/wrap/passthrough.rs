//! Copies one stream of the command to the own stream of `runcast`, unchanged and at once.
//!
//! A thread of its own writes. So a slow reader of one own stream delays no other stream, and
//! publishing does not delay output that was read already. It works whether the own stream blocks
//! or not: other processes share that flag, so it is neither relied on nor changed.
//!
//! Data: a queue of [`MAX_WAITING_CHUNKS`]; while it is full the command's stream is not read. No
//! time limit: a reader that does not read blocks the command, as it would without `runcast`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use crate::console::print_message;

/// Chunks that wait to be written: enough that a briefly delayed writer does not delay reading,
/// since the order of two streams is only known while both are read promptly.
pub(super) const MAX_WAITING_CHUNKS: usize = 16;

/// Pause if a stream claims to be writable and yet refuses to be written.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The copy of one stream.
#[derive(Debug)]
pub(crate) struct Passthrough {
    chunks: mpsc::Sender<Bytes>,
    own: Arc<OwnedFd>,
    written: oneshot::Receiver<io::Result<()>>,
}

/// A copy whose last chunks are being written.
#[derive(Debug)]
pub(crate) struct LastChunks(oneshot::Receiver<io::Result<()>>);

impl Passthrough {
    /// Starts the writing thread.
    pub(crate) fn start(own: OwnedFd) -> io::Result<Self> {
        let own = Arc::new(own);
        let (chunks, waiting) = mpsc::channel(MAX_WAITING_CHUNKS);
        let (result, written) = oneshot::channel();
        let to = Arc::clone(&own);
        let thread = thread::Builder::new().name("passthrough".into());
        thread.spawn(move || {
            let ended = write_chunks(&to, waiting);
            // Closed first: its reader may wait for the end.
            drop(to);
            drop(result.send(ended));
        })?;
        Ok(Self {
            chunks,
            own,
            written,
        })
    }

    /// Whether [`push`](Self::push) accepts a chunk.
    pub(crate) fn has_room(&self) -> bool {
        self.chunks.capacity() > 0
    }

    /// Whether the own stream cannot be written any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Queues a chunk, if there is room.
    pub(crate) fn push(&self, chunk: Bytes) {
        // Fails if the stream was just closed.
        drop(self.chunks.try_send(chunk));
    }

    /// Waits until [`push`](Self::push) accepts a chunk or the stream is closed. Cancel safe.
    pub(crate) async fn wait_for_room(&self) {
        drop(self.chunks.reserve().await);
    }

    /// Waits until the own stream cannot be written any more. Cancel safe.
    pub(crate) async fn closed(&self) {
        self.chunks.closed().await;
    }

    /// The own stream, for what is written to it after this copy.
    pub(crate) fn own(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.own)
    }

    /// Closes the own stream once everything is written.
    pub(crate) fn close(self) -> LastChunks {
        LastChunks(self.written)
    }
}

impl AsFd for Passthrough {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl LastChunks {
    /// Waits until everything is written. Returns why it could not be, unless its reader was gone.
    pub(crate) async fn written(self) -> Option<io::Error> {
        match self.0.await {
            Ok(written) => written.err(),
            Err(_panicked) => Some(io::Error::other("the thread that writes it has failed")),
        }
    }
}

/// Writes until all is written, or the reader has closed the stream.
fn write_chunks(own: &OwnedFd, mut chunks: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(chunk) = chunks.blocking_recv() {
        match write_all(own, &chunk) {
            Ok(()) => {}
            Err(error) if is_reader_gone(&error) => return Ok(()),
            Err(error) => {
                print_message(format_args!(
                    "the output of the command cannot be written and is closed: {error}"
                ));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Whether a write failed because the stream has no reader any more.
pub(crate) fn is_reader_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Writes all bytes, however long that takes.
pub(crate) fn write_all(to: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let mut refused = false;
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                bytes = &bytes[length..];
                refused = false;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if refused {
                    thread::sleep(REFUSED_PAUSE);
                }
                refused = true;
                let mut fds = [PollFd::new(to, PollFlags::OUT)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_full_non_blocking_stream_delays_and_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("set");
        let passthrough = Passthrough::start(writer.into()).expect("started");
        let mut pushed = Vec::new();
        // More than the pipe and the queue hold.
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        for number in 0..200_u8 {
            let chunk = Bytes::from(vec![number; 10_000]);
            pushed.extend_from_slice(&chunk);
            passthrough.wait_for_room().await;
            passthrough.push(chunk);
        }
        assert!(passthrough.close().written().await.is_none());
        let read = reading.join().expect("no panic").expect("read");
        assert!(read == pushed, "{} of {} bytes", read.len(), pushed.len());
    }

    #[tokio::test]
    async fn a_full_disk_closes_the_stream_and_is_reported() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let passthrough = Passthrough::start(full.expect("exists").into()).expect("started");
        passthrough.push(Bytes::from_static(b"text"));
        passthrough.closed().await;
        let error = passthrough.close().written().await.expect("an error");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
