//! The writer threads of a gateway, and how a viewer's connection gets to one of them.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mio::Poll;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::mailbox::{Mailbox, NewConnection};
use super::metrics::Metrics;
use super::thread::WriterThread;
use crate::hub::Hub;
use crate::viewer::Viewer;

/// The writer threads of a gateway.
#[derive(Debug)]
pub struct WriterPool {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Counts connections, to spread them over the threads.
    next: AtomicUsize,
    /// Until [`WriterPool::run`] starts them.
    threads: Mutex<Vec<WriterThread>>,
}

impl WriterPool {
    /// One thread for every two processors: the others encode frames. A viewer that takes nothing
    /// for `stall_timeout` is closed. [`WriterPool::run`] must run for anything to be written.
    ///
    /// # Errors
    /// If the kernel refuses `epoll`.
    pub fn new(
        hub: &Arc<Hub>,
        stall_timeout: Duration,
        metrics: &Metrics,
    ) -> io::Result<Arc<Self>> {
        let count = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        let mut mailboxes = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..count {
            let poll = Poll::new()?;
            let mailbox = Arc::new(Mailbox::new(poll.registry())?);
            threads.push(WriterThread::new(
                poll,
                Arc::clone(&mailbox),
                hub.shedding(),
                stall_timeout,
                metrics.clone(),
            ));
            mailboxes.push(mailbox);
        }
        Ok(Arc::new(Self {
            mailboxes,
            next: AtomicUsize::new(0),
            threads: Mutex::new(threads),
        }))
    }

    /// Runs the threads. Whenever `revocations` changes they close the viewers whose credential has
    /// ended. After `stop` they tell all viewers to reconnect, and end when those are gone, or
    /// after `thread::DRAIN_TIMEOUT`.
    ///
    /// # Errors
    /// If `epoll` fails, or a thread panics.
    pub async fn run(
        self: Arc<Self>,
        stop: CancellationToken,
        mut revocations: watch::Receiver<u64>,
    ) -> io::Result<()> {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut running = JoinSet::new();
        for thread in threads {
            running.spawn_blocking(move || thread.run());
        }
        let mut is_draining = false;
        loop {
            tokio::select! {
                () = stop.cancelled(), if !is_draining => {
                    is_draining = true;
                    self.mailboxes.iter().for_each(|mailbox| mailbox.drain());
                }
                Ok(()) = revocations.changed() => {
                    self.mailboxes.iter().for_each(|mailbox| mailbox.check_revocations());
                }
                ended = running.join_next() => match ended {
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => return Err(error),
                    Some(Err(panic)) => return Err(io::Error::other(panic)),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Takes over a connection whose request is answered, except for the head of the response. The
    /// socket must be non-blocking.
    pub fn add_viewer(&self, socket: TcpStream, head: Bytes, viewer: Viewer) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.mailboxes[number % self.mailboxes.len()].add_connection(NewConnection {
            socket,
            head,
            viewer,
        });
    }
}
