//! [`ReadOrder`]: the order in which the command's streams became readable.
//!
//! The kernel keeps the ready descriptors of an `epoll` in the order in which they became ready, so
//! its events show that order even if several are ready by the time of the call. It cannot show how
//! writes to two streams alternated while neither was read: then the stream that was ready first is
//! read until it is empty, and after it the other.
//!
//! It also watches the own streams that the command's are copied to, for the end of their readers.
//!
//! Data: the indexes that are ready, each once, and those whose writers or readers are gone.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::termios::isatty;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fd_ready::watched;

/// Events per call: the streams of one command, and the own ones.
const MAX_EVENTS: usize = 4;

/// Marks the index of an own stream in the data of an event.
const OWN_STREAM: u64 = 1 << 32;

/// Do not wait.
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The streams that are ready, in the order in which they became readable.
#[derive(Debug)]
pub(crate) struct ReadOrder {
    epoll: AsyncFd<OwnedFd>,
    ready: VecDeque<usize>,
    /// Hung up: the kernel reports their end only once, with the last bytes.
    hung_up: Vec<usize>,
    /// The own streams without a reader.
    unread: Vec<usize>,
}

impl ReadOrder {
    /// Must be called within a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: watched(epoll, Interest::READABLE)?,
            ready: VecDeque::new(),
            hung_up: Vec::new(),
            unread: Vec::new(),
        })
    }

    /// Watches a stream until it is closed. Each readiness is reported once (edge-triggered): after
    /// a read, call [`requeue`](Self::requeue) or [`on_emptied`](Self::on_emptied).
    pub(crate) fn watch(&self, stream: impl AsFd, index: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, stream, data, flags)?)
    }

    /// Watches the own stream that this stream is copied to, if it is a pipe or a socket: its
    /// reader may leave while nothing is written.
    pub(crate) fn watch_reader(&self, own: impl AsFd, index: usize) -> io::Result<()> {
        if isatty(&own) {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(OWN_STREAM | index as u64);
        // The kernel reports errors and hangups in any case.
        match epoll::add(&self.epoll, own, data, epoll::EventFlags::ET) {
            // A file, which has no reader.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the own stream of this stream has no reader any more.
    pub(crate) fn is_unread(&self, index: usize) -> bool {
        self.unread.contains(&index)
    }

    /// Adds the streams that have become ready, without waiting.
    pub(crate) fn poll(&mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(MAX_EVENTS);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&NO_WAIT)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let (data, flags) = (event.data, event.flags);
            let index = usize::try_from(data.u64() & !OWN_STREAM).unwrap_or(usize::MAX);
            if data.u64() & OWN_STREAM != 0 {
                if flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
                    self.unread.push(index);
                }
                continue;
            }
            self.requeue(index);
            if flags.contains(epoll::EventFlags::HUP) && !self.hung_up.contains(&index) {
                self.hung_up.push(index);
            }
        }
        Ok(())
    }

    /// Takes the stream that has been ready longest, of those that may be read.
    pub(crate) fn take(&mut self, may_read: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.ready.iter().position(|&index| may_read(index))?;
        self.ready.remove(at)
    }

    /// Queues a stream that has more to read, behind the others.
    pub(crate) fn requeue(&mut self, index: usize) {
        if !self.is_ready(index) {
            self.ready.push_back(index);
        }
    }

    /// A stream is empty. If its writers are gone, its end is still to be read.
    pub(crate) fn on_emptied(&mut self, index: usize) {
        if self.hung_up.contains(&index) {
            self.requeue(index);
        }
    }

    /// Whether a stream can be read or has ended.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.ready.contains(&index)
    }

    /// Waits until [`poll`](Self::poll) has something to add. Cancel safe.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        self.epoll.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn the_stream_written_first_comes_first_however_late_it_is_polled() {
        let pipes: Vec<_> = (0..2).map(|_| io::pipe().expect("a pipe")).collect();
        let mut order = ReadOrder::new().expect("an epoll");
        for (index, (reader, _)) in pipes.iter().enumerate() {
            order.watch(reader, index).expect("watched");
        }
        for first in [0, 1, 1, 0] {
            for index in [first, 1 - first] {
                (&pipes[index].1).write_all(b"x").expect("written");
            }
            order.changed().await.expect("ready");
            order.poll().expect("polled");
            assert_eq!(order.take(|_| true), Some(first));
            assert_eq!(order.take(|index| index == first), None);
            assert_eq!(order.take(|_| true), Some(1 - first));
            assert_eq!(order.take(|_| true), None);
            order.on_emptied(first);
            assert!(!order.is_ready(first));
        }
    }

    #[tokio::test]
    async fn an_end_with_the_last_bytes_is_not_missed() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut order = ReadOrder::new().expect("an epoll");
        order.watch(&reader, 0).expect("watched");
        writer.write_all(b"x").expect("written");
        drop(writer);
        order.changed().await.expect("ready");
        order.poll().expect("polled");
        assert_eq!(order.take(|_| true), Some(0));
        order.on_emptied(0);
        assert!(order.is_ready(0));
    }
}
