//! Copies one stream of the command to the own stream of `runcast`, unchanged and at once.
//!
//! A task of its own writes. So a slow reader of one own stream delays no other stream, and
//! publishing does not delay output that was read already.
//!
//! Data: a queue of [`MAX_WAITING_CHUNKS`]; while it is full the command's stream is not read. No
//! time limit: a reader that does not read blocks the command, as it would without `runcast`.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::console::print_message;

/// Chunks that wait to be written: enough that a briefly delayed writer does not delay reading,
/// since the order of two streams is only known while both are read promptly.
const MAX_WAITING_CHUNKS: usize = 16;

/// The copy of one stream.
#[derive(Debug)]
pub(crate) struct Passthrough {
    chunks: mpsc::Sender<Bytes>,
    writing: AbortOnDropHandle<()>,
}

impl Passthrough {
    /// Starts the writing task. Must be called within a tokio runtime.
    pub(crate) fn new(own: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (chunks, waiting) = mpsc::channel(MAX_WAITING_CHUNKS);
        Self {
            chunks,
            writing: AbortOnDropHandle::new(tokio::spawn(write(own, waiting))),
        }
    }

    /// Whether [`push`](Self::push) accepts a chunk.
    pub(crate) fn has_room(&self) -> bool {
        self.chunks.capacity() > 0
    }

    /// Whether the reader has closed the own stream.
    pub(crate) fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Queues a chunk, if there is room.
    pub(crate) fn push(&self, chunk: Bytes) {
        // Fails if the reader has just closed the stream.
        drop(self.chunks.try_send(chunk));
    }

    /// Waits until [`push`](Self::push) accepts a chunk or the stream is closed. Cancel safe.
    pub(crate) async fn wait_for_room(&self) {
        drop(self.chunks.reserve().await);
    }

    /// Waits until the reader has closed the stream. Cancel safe.
    pub(crate) async fn closed(&self) {
        self.chunks.closed().await;
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) {
        drop(self.chunks);
        if let Err(error) = self.writing.await {
            tracing::error!(%error, "the task that copies the output has failed");
        }
    }
}

/// Writes until all is written or the reader has closed the stream.
async fn write(own: impl AsyncWrite + Unpin, mut chunks: mpsc::Receiver<Bytes>) {
    let mut own = Some(own);
    while let Some(chunk) = chunks.recv().await {
        let Some(stream) = &mut own else { continue };
        let written = async {
            stream.write_all(&chunk).await?;
            stream.flush().await
        };
        match written.await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Err(error) => {
                print_message(format_args!(
                    "the output cannot be written to its own stream: {error}"
                ));
                own = None;
            }
        }
    }
}
