//! A client's socket that fails when the client stops reading what is sent to it.
//!
//! Time: a write may wait for `stall_timeout`, as for viewers. While the process has too little
//! memory it may wait for one round of [`runcast_fanout::memory`] only, since what waits for a
//! client takes up memory. Data: a timer while a write waits.

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

/// A socket whose writes fail when they wait too long.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    stall_timeout: Duration,
    memory: Arc<MemoryGuard>,
    is_blocked: Arc<AtomicBool>,
    /// Runs while a write waits, and resolves to the error that it fails with.
    timeout: Option<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        stall_timeout: Duration,
        memory: Arc<MemoryGuard>,
    ) -> Self {
        Self {
            stream,
            stall_timeout,
            memory,
            is_blocked: Arc::default(),
            timeout: None,
        }
    }

    /// Whether a write waits for the client.
    pub(super) fn is_blocked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_blocked)
    }

    /// Starts the timer when a write has to wait, and stops it when one went through.
    fn watch_write<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.is_blocked
            .store(polled.is_pending(), Ordering::Relaxed);
        if polled.is_ready() {
            self.timeout = None;
            return polled;
        }
        let (stall_timeout, memory) = (self.stall_timeout, &self.memory);
        let timeout = self
            .timeout
            .get_or_insert_with(|| Box::pin(stalled(stall_timeout, memory.shedding())));
        timeout.as_mut().poll(context).map(Err)
    }
}

/// Waits for as long as a write may wait.
async fn stalled(stall_timeout: Duration, shedding: ShedSignal) -> io::Error {
    let reason = tokio::select! {
        () = sleep(stall_timeout) => format!("the client read nothing for {stall_timeout:?}"),
        () = shedding.whole_round() => {
            "the client read nothing while there is too little memory".to_owned()
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
        self.watch_write(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(polled, context)
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
