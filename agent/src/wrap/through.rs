//! Passes one stream of the wrapped command through to our own one, unchanged and at once.
//!
//! A task of its own writes, so that a reader of ours who takes nothing holds up this stream and no
//! other, and so that publishing holds up nothing that is read already.
//!
//! Data: a queue of [`CHUNKS`] reads; while it is full the command's stream is not read. No time limit: who
//! does not read our output stops the command, as without us.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::say;

/// Reads that may wait to be written: so many that a writer which is a moment late never holds up
/// reading, since the order of two streams can be told only as long as both are read at once.
const CHUNKS: usize = 16;

/// The way of one stream to our own.
#[derive(Debug)]
pub(crate) struct Through {
    chunks: mpsc::Sender<Bytes>,
    writing: AbortOnDropHandle<()>,
}

impl Through {
    /// Starts to write. Must be called within a tokio runtime.
    pub(crate) fn to(own: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (chunks, waiting) = mpsc::channel(CHUNKS);
        Self {
            chunks,
            writing: AbortOnDropHandle::new(tokio::spawn(write(own, waiting))),
        }
    }

    /// True if [`push`](Self::push) takes a chunk.
    pub(crate) fn has_room(&self) -> bool {
        self.chunks.capacity() > 0
    }

    /// True if nobody reads our own stream any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Passes a chunk on, if there is room.
    pub(crate) fn push(&self, chunk: Bytes) {
        // It fails where the reader has just gone.
        drop(self.chunks.try_send(chunk));
    }

    /// Waits until [`push`](Self::push) takes a chunk, or the reader has gone. Can be dropped at any time.
    pub(crate) async fn room(&self) {
        drop(self.chunks.reserve().await);
    }

    /// Waits until the reader has gone. Can be dropped at any time.
    pub(crate) async fn gone(&self) {
        self.chunks.closed().await;
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) {
        drop(self.chunks);
        if let Err(error) = self.writing.await {
            tracing::error!(%error, "passing the output through has failed");
        }
    }
}

/// Writes until there is nothing more, or nobody who reads it.
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
                say(format_args!("the output cannot be passed through: {error}"));
                own = None;
            }
        }
    }
}
