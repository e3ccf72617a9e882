//! Copies the command's output, in the order in which its streams became readable: unchanged to the
//! own streams of `runcast` ([`Passthrough`]), and redacted and in lines into the publisher.
//!
//! One task reads all streams, so events are published in that order. A stream is not read while
//! too much of it waits to be written to the own stream; the others continue. If the command writes
//! to two streams faster than they are read, their order cannot be known: see [`ReadOrder`]. A
//! terminal (`--tty`) has one stream, so its order is exact.
//!
//! Data: one read buffer of [`READ_BYTES`], and what each [`OutputStream`] holds. Time: that of the
//! streams. After the command has ended they are read until the given deadline, since a descendant
//! may hold them open without end; what is open by then is returned.

use std::io;

use futures::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::event_sink::DroppedEvents;
use super::left_behind::OpenStream;
use super::output_stream::{OutputStream, ReadResult};
use super::passthrough::{LastChunks, Passthrough};
use super::read_order::ReadOrder;

/// Bytes per read: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that are read of each stream after the deadline if they are there already: the most that a
/// pipe can hold unless root made it larger.
const MAX_PIPE_BYTES: usize = 1024 * 1024;

/// What became of the streams.
#[derive(Debug, Default)]
pub(super) struct CopiedOutput {
    /// What could not be published.
    pub(super) dropped: DroppedEvents,
    /// Why an own stream could not be written to its end.
    pub(super) unwritten: Option<io::Error>,
    /// The streams that processes still have open.
    pub(super) open: Vec<OpenStream>,
}

/// Why a stream is not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    /// Its writers have closed it, or its own stream cannot be written any more.
    Closed,
    /// The deadline has passed.
    Deadline,
}

/// The open streams, and what is left of the others.
struct OutputCopier {
    order: ReadOrder,
    streams: Vec<Option<OutputStream>>,
    late_bytes: Vec<usize>,
    copied: CopiedOutput,
    closing: Vec<LastChunks>,
    buffer: Vec<u8>,
}

/// Copies everything until the streams end, or until the deadline has passed and nothing is left to
/// read.
pub(super) async fn copy_output(
    streams: Vec<OutputStream>,
    mut deadline: watch::Receiver<Option<Instant>>,
) -> io::Result<CopiedOutput> {
    let order = ReadOrder::new()?;
    for (index, stream) in streams.iter().enumerate() {
        order.watch(stream, index)?;
        order.watch_reader(stream.passthrough(), index)?;
    }
    let mut copier = OutputCopier {
        order,
        late_bytes: vec![0; streams.len()],
        streams: streams.into_iter().map(Some).collect(),
        copied: CopiedOutput::default(),
        closing: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    while copier.open().next().is_some() {
        let until = *deadline.borrow_and_update();
        let is_late = until.is_some_and(|until| until <= Instant::now());
        copier.order.poll()?;
        copier.end_streams(is_late).await;
        if copier.read_next(is_late).await {
            // A stream that never pauses must not starve other tasks.
            yield_now().await;
        } else if copier.open().next().is_some() {
            let due = copier.open().filter_map(OutputStream::due_at);
            let next = due.chain(until.filter(|_| !is_late)).min();
            tokio::select! {
                changed = copier.order.changed() => changed?,
                () = copier.wait_for_room() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = deadline.changed() => if changed.is_err() { break },
            }
        }
        for stream in copier.streams.iter_mut().flatten() {
            stream.tick().await;
        }
    }
    for index in 0..copier.streams.len() {
        copier.end(index, StreamEnd::Closed).await;
    }
    let written = join_all(copier.closing.into_iter().map(LastChunks::written)).await;
    copier.copied.unwritten = written.into_iter().flatten().next();
    Ok(copier.copied)
}

impl OutputCopier {
    fn open(&self) -> impl Iterator<Item = &OutputStream> {
        self.streams.iter().flatten()
    }

    /// Reads the stream that has been ready longest, of those that may be read. Returns false if
    /// there is none.
    async fn read_next(&mut self, is_late: bool) -> bool {
        let streams = &self.streams;
        let may = |index: usize| match streams.get(index) {
            Some(Some(stream)) => stream.passthrough().has_room(),
            _ => false,
        };
        let Some(index) = self.order.take(may) else {
            return false;
        };
        let Some(Some(stream)) = self.streams.get_mut(index) else {
            return false;
        };
        let length = match stream.read(&mut self.buffer) {
            Ok(ReadResult::Some(length)) => {
                self.order.requeue(index);
                length
            }
            Ok(ReadResult::Last(length)) => {
                self.order.on_emptied(index);
                length
            }
            Ok(ReadResult::Nothing) => 0,
            Ok(ReadResult::End) => {
                self.end(index, StreamEnd::Closed).await;
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "the command's output cannot be read any more");
                self.end(index, StreamEnd::Closed).await;
                return true;
            }
        };
        if length > 0 {
            stream.process(&self.buffer[..length]).await;
        }
        if is_late {
            self.late_bytes[index] += length;
            if self.late_bytes[index] >= MAX_PIPE_BYTES {
                self.end(index, StreamEnd::Deadline).await;
            }
        }
        true
    }

    /// Ends streams whose deadline has passed, and streams without a reader: the command must
    /// notice that its output is closed, at its next write.
    async fn end_streams(&mut self, is_late: bool) {
        for index in 0..self.streams.len() {
            let Some(stream) = &mut self.streams[index] else {
                continue;
            };
            if stream.passthrough().is_closed() || self.order.is_unread(index) {
                // What it wrote before is published.
                if let Ok(ReadResult::Some(length) | ReadResult::Last(length)) =
                    stream.read(&mut self.buffer)
                {
                    stream.process(&self.buffer[..length]).await;
                }
                self.end(index, StreamEnd::Closed).await;
            } else if is_late && !self.order.is_ready(index) {
                self.end(index, StreamEnd::Deadline).await;
            }
        }
    }

    async fn end(&mut self, index: usize, why: StreamEnd) {
        if let Some(stream) = self.streams[index].take() {
            let (dropped, from, to) = stream.finish(why == StreamEnd::Deadline).await;
            self.copied.dropped.add(dropped);
            let own = to.own();
            let open = from.map(|from| OpenStream { from, own });
            self.copied.open.extend(open);
            self.closing.push(to.close());
        }
    }

    /// Waits until an own stream has room for what its source has ready, or is closed. Room that
    /// appeared before the call ends the wait at once, since nothing else would.
    async fn wait_for_room(&self) {
        let streams = self.streams.iter().enumerate();
        let open = streams.filter_map(|(index, stream)| Some((index, stream.as_ref()?)));
        let changes =
            open.map(|(index, stream)| Box::pin(self.change(index, stream.passthrough())));
        select_all(changes).await;
    }

    async fn change(&self, index: usize, to: &Passthrough) {
        if self.order.is_ready(index) {
            to.wait_for_room().await;
        } else {
            to.closed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read as _, Write as _};

    use futures::FutureExt as _;
    use runcast_redact::Redactor;

    use super::super::chunks::{ChunkSinks, STDOUT};
    use super::super::detect::Markers;
    use super::super::passthrough::MAX_WAITING_CHUNKS;
    use super::*;

    /// A command's stream with one line, and the own stream that it is copied to.
    fn one_stream(own: PipeWriter) -> OutputCopier {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"a line\n").expect("written");
        let sink = ChunkSinks::new(None, Markers::default(), 0, "test").sink(STDOUT);
        let redact = Redactor::empty().stream();
        let passthrough = Passthrough::start(own.into()).expect("a thread");
        let stream = OutputStream::new(reader.into(), passthrough, redact, sink).expect("a stream");
        let order = ReadOrder::new().expect("an epoll");
        order.watch(&stream, 0).expect("watched");
        OutputCopier {
            order,
            streams: vec![Some(stream)],
            late_bytes: vec![0],
            copied: CopiedOutput::default(),
            closing: Vec::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    #[tokio::test]
    async fn room_that_appears_before_the_wait_is_not_missed() {
        let (mut reader, mut own) = io::pipe().expect("a pipe");
        own.write_all(&vec![b'x'; READ_BYTES])
            .expect("as much as it holds");
        let mut copier = one_stream(own);
        let has_room =
            |copier: &OutputCopier| copier.open().all(|stream| stream.passthrough().has_room());
        copier.order.changed().await.expect("ready");
        copier.order.poll().expect("looked");
        // The writer takes one chunk and blocks on it; the others fill the queue.
        for _ in 0..=MAX_WAITING_CHUNKS {
            while !has_room(&copier) {
                yield_now().await;
            }
            for stream in copier.streams.iter_mut().flatten() {
                stream.process(b"xx").await;
            }
        }
        assert!(!copier.read_next(false).await);
        assert_eq!(copier.wait_for_room().now_or_never(), None);
        // The kernel does not report the line again, so only the room can end the wait.
        reader.read_exact(&mut vec![0; READ_BYTES]).expect("read");
        while !has_room(&copier) {
            yield_now().await;
        }
        assert_eq!(copier.wait_for_room().now_or_never(), Some(()));
        assert!(copier.read_next(false).await);
    }
}
