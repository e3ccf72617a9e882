//! A client's socket, which fails when the client takes nothing of what it asked for.
//!
//! Time: the patience that viewers are given; while the process has too little memory, a whole round of
//! [`memory`](crate::fanout::memory), since what waits for a client is memory. Data: a timer while something waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use runcast_fanout::memory::{MemoryGuard, ShedSignal};

/// A socket that tells whether something waits to be written, and fails when that takes too long.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    patience: Duration,
    memory: Arc<MemoryGuard>,
    is_blocked: Arc<AtomicBool>,
    /// Runs while something waits, and tells why it must not wait longer.
    gives_up: Option<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
}

impl Socket {
    /// Whoever takes nothing for as long as `patience` is given up.
    pub(super) fn new(stream: TcpStream, patience: Duration, memory: Arc<MemoryGuard>) -> Self {
        Self {
            stream,
            patience,
            memory,
            is_blocked: Arc::default(),
            gives_up: None,
        }
    }

    /// Whether something waits to be written.
    pub(super) fn is_blocked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_blocked)
    }

    fn note<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.is_blocked
            .store(polled.is_pending(), Ordering::Relaxed);
        if polled.is_ready() {
            self.gives_up = None;
            return polled;
        }
        let (patience, memory) = (self.patience, &self.memory);
        let gives_up = self
            .gives_up
            .get_or_insert_with(|| Box::pin(too_long(patience, memory.shedding())));
        gives_up.as_mut().poll(context).map(Err)
    }
}

/// Waits for as long as somebody may take nothing.
async fn too_long(patience: Duration, shedding: ShedSignal) -> io::Error {
    let reason = tokio::select! {
        () = sleep(patience) => format!("the client took nothing for {patience:?}"),
        () = shedding.whole_round() => {
            "the client took nothing while there is too little memory".to_owned()
        }
    };
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
