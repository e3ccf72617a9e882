//! Tells which of the command's streams became readable first.
//!
//! The kernel keeps a list of the descriptors of an `epoll` in the order in which they became ready,
//! so its answers are that order, even where several are ready by the time that we look. What it
//! cannot tell is how writes to two streams alternated while neither was read: then the one that was
//! ready first gives all it has, and after it the other.
//!
//! Data: the indexes that are ready, each once, and those that nobody writes to any more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::descriptor::watched;

/// Streams of one command, and some room.
const EVENTS: usize = 4;

/// Do not wait.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The order in which streams became readable.
#[derive(Debug)]
pub(crate) struct Order {
    epoll: AsyncFd<OwnedFd>,
    ready: VecDeque<usize>,
    /// Hung up: their end is told of but once, with what was written last.
    over: Vec<usize>,
}

impl Order {
    /// Watches no stream yet. Must be called within a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: watched(epoll, Interest::READABLE)?,
            ready: VecDeque::new(),
            over: Vec::new(),
        })
    }

    /// Watches a stream until it is closed. It is told of once for everything that can be read then:
    /// after a read [`again`](Self::again) or [`emptied`](Self::emptied) is to be called.
    pub(crate) fn watch(&self, stream: impl AsFd, index: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, stream, data, flags)?)
    }

    /// Takes in what has become ready, without waiting.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&AT_ONCE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let (data, flags) = (event.data, event.flags);
            let index = usize::try_from(data.u64()).unwrap_or(usize::MAX);
            self.again(index);
            if flags.contains(epoll::EventFlags::HUP) && !self.over.contains(&index) {
                self.over.push(index);
            }
        }
        Ok(())
    }

    /// Takes the stream that has been ready for longest, of those that shall be read.
    pub(crate) fn take(&mut self, shall: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.ready.iter().position(|&index| shall(index))?;
        self.ready.remove(at)
    }

    /// There is more to read from a stream; others come first.
    pub(crate) fn again(&mut self, index: usize) {
        if !self.is_ready(index) {
            self.ready.push_back(index);
        }
    }

    /// A stream has given all it had; there is its end to read if nobody writes to it any more.
    pub(crate) fn emptied(&mut self, index: usize) {
        if self.over.contains(&index) {
            self.again(index);
        }
    }

    /// True if a stream can be read, or has ended.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.ready.contains(&index)
    }

    /// Waits until [`look`](Self::look) has something to take in. Can be dropped at any time.
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
    async fn what_was_written_first_is_told_first_however_late_we_look() {
        let pipes: Vec<_> = (0..2).map(|_| io::pipe().expect("a pipe")).collect();
        let mut order = Order::new().expect("an epoll");
        for (index, (reader, _)) in pipes.iter().enumerate() {
            order.watch(reader, index).expect("watched");
        }
        for first in [0, 1, 1, 0] {
            for index in [first, 1 - first] {
                (&pipes[index].1).write_all(b"x").expect("written");
            }
            order.changed().await.expect("ready");
            order.look().expect("looked");
            assert_eq!(order.take(|_| true), Some(first));
            assert_eq!(order.take(|index| index == first), None);
            assert_eq!(order.take(|_| true), Some(1 - first));
            assert_eq!(order.take(|_| true), None);
            order.emptied(first);
            assert!(!order.is_ready(first));
        }
    }

    #[tokio::test]
    async fn an_end_that_came_with_the_last_bytes_is_not_missed() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut order = Order::new().expect("an epoll");
        order.watch(&reader, 0).expect("watched");
        writer.write_all(b"x").expect("written");
        drop(writer);
        order.changed().await.expect("ready");
        order.look().expect("looked");
        assert_eq!(order.take(|_| true), Some(0));
        order.emptied(0);
        assert!(order.is_ready(0));
    }
}
