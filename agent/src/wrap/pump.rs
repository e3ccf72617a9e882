//! Moves what the wrapped command writes, in the order in which its streams became readable: to our own
//! streams unchanged ([`Through`](super::through::Through)), and redacted and in lines into the publisher.
//!
//! One task reads all streams, so that what is published stands in that order. A stream is not read while
//! too much of it still waits to be written to our own one; the others go on. Where the
//! command writes to two streams faster than they are read, the order is not knowable: see
//! [`Order`]. A terminal (`--tty`) has one stream, so there the order is exact.
//!
//! Data: one read buffer of [`READ_BYTES`], and what each [`Lane`] holds. Time: that of the lanes; after
//! the command's end the streams are read for as long as the given deadline allows, since a
//! descendant may hold them open for ever.

use std::io;

use futures::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::feed::Dropped;
use super::lane::{Lane, Read};
use super::order::Order;
use super::through::Through;

/// Bytes of one read: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// What is still read of each stream after the deadline, if it is there already: the most that a pipe can
/// hold unless root made it larger.
const PIPE_BYTES: usize = 1024 * 1024;

/// The streams that are read, and what has become of the others.
struct Pump {
    order: Order,
    lanes: Vec<Option<Lane>>,
    late_bytes: Vec<usize>,
    dropped: Vec<Dropped>,
    leaving: Vec<Through>,
    buffer: Vec<u8>,
}

/// Moves everything until the streams' end, or until `deadline` has come and nothing is left to
/// read; gives what could not be published.
///
/// # Errors
/// If the kernel refuses to tell which stream is ready.
pub(crate) async fn pump(
    lanes: Vec<Lane>,
    mut deadline: watch::Receiver<Option<Instant>>,
) -> io::Result<Vec<Dropped>> {
    let order = Order::new()?;
    for (index, lane) in lanes.iter().enumerate() {
        order.watch(lane, index)?;
    }
    let mut pump = Pump {
        order,
        late_bytes: vec![0; lanes.len()],
        lanes: lanes.into_iter().map(Some).collect(),
        dropped: Vec::new(),
        leaving: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    while pump.open().next().is_some() {
        let until = *deadline.borrow_and_update();
        let is_late = until.is_some_and(|until| until <= Instant::now());
        pump.order.look()?;
        pump.end_lanes(is_late).await;
        if pump.read_next(is_late).await {
            // Whoever writes without end shall not keep the others from their turn.
            yield_now().await;
        } else if pump.open().next().is_some() {
            let due = pump.open().filter_map(Lane::due);
            let next = due.chain(until.filter(|_| !is_late)).min();
            tokio::select! {
                changed = pump.order.changed() => changed?,
                () = pump.room() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = deadline.changed(), if until.is_none() => if changed.is_err() { break },
            }
        }
        for lane in pump.lanes.iter_mut().flatten() {
            lane.tick().await;
        }
    }
    for index in 0..pump.lanes.len() {
        pump.end(index).await;
    }
    join_all(pump.leaving.into_iter().map(Through::finish)).await;
    Ok(pump.dropped)
}

impl Pump {
    fn open(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    /// Reads the stream that was ready first, of those that may be read; false if there is none.
    async fn read_next(&mut self, is_late: bool) -> bool {
        let lanes = &self.lanes;
        let may = |index: usize| match lanes.get(index) {
            Some(Some(lane)) => lane.to().has_room(),
            _ => false,
        };
        let Some(index) = self.order.take(may) else {
            return false;
        };
        let Some(Some(lane)) = self.lanes.get_mut(index) else {
            return false;
        };
        let length = match lane.read(&mut self.buffer) {
            Ok(Read::Some(length)) => {
                self.order.again(index);
                length
            }
            Ok(Read::Last(length)) => {
                self.order.emptied(index);
                length
            }
            Ok(Read::Nothing) => 0,
            Ok(Read::End) => {
                self.end(index).await;
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "the command's output cannot be read any more");
                self.end(index).await;
                return true;
            }
        };
        if length > 0 {
            lane.take(&self.buffer[..length]).await;
        }
        if is_late {
            self.late_bytes[index] += length;
            if self.late_bytes[index] >= PIPE_BYTES {
                self.end(index).await;
            }
        }
        true
    }

    /// Ends the streams whose time is over, and those that nobody reads: the command shall find its own
    /// closed as well.
    async fn end_lanes(&mut self, is_late: bool) {
        for index in 0..self.lanes.len() {
            if let Some(lane) = &self.lanes[index]
                && (lane.to().is_gone() || (is_late && !self.order.is_ready(index)))
            {
                self.end(index).await;
            }
        }
    }

    async fn end(&mut self, index: usize) {
        if let Some(lane) = self.lanes[index].take() {
            let (dropped, to) = lane.finish().await;
            self.dropped.push(dropped);
            self.leaving.push(to);
        }
    }

    /// Waits until one of our own streams takes what the command's has ready, or is gone. Room that has come
    /// since we last looked ends the wait at once: nothing else would.
    async fn room(&self) {
        let lanes = self.lanes.iter().enumerate();
        let open = lanes.filter_map(|(index, lane)| Some((index, lane.as_ref()?)));
        let changes = open.map(|(index, lane)| Box::pin(self.change(index, lane.to())));
        select_all(changes).await;
    }

    async fn change(&self, index: usize, to: &Through) {
        if self.order.is_ready(index) {
            to.room().await;
        } else {
            to.gone().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::FutureExt as _;
    use tokio::io::AsyncReadExt as _;

    use super::super::feed::{Feeds, STDOUT};
    use super::super::recognise::markers::Markers;
    use super::*;
    use crate::redact::Redactor;

    /// A command's stream with one line, and our own, which nobody reads yet.
    fn one_lane(own: tokio::io::DuplexStream) -> Pump {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"a line\n").expect("written");
        let feed = Feeds::new(None, Markers::default(), 0, "test").feed(STDOUT);
        let redact = Redactor::empty().stream();
        let lane = Lane::new(reader.into(), Through::to(own), redact, feed).expect("a lane");
        let order = Order::new().expect("an epoll");
        order.watch(&lane, 0).expect("watched");
        Pump {
            order,
            lanes: vec![Some(lane)],
            late_bytes: vec![0],
            dropped: Vec::new(),
            leaving: Vec::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    #[tokio::test]
    async fn room_that_comes_just_before_we_wait_for_it_is_not_missed() {
        let (own, mut reader) = tokio::io::duplex(1);
        let mut pump = one_lane(own);
        let has_room = |pump: &Pump| pump.open().all(|lane| lane.to().has_room());
        pump.order.changed().await.expect("ready");
        pump.order.look().expect("looked");
        // The writer takes one chunk, and holds it.
        while has_room(&pump) {
            for lane in pump.lanes.iter_mut().flatten() {
                lane.take(b"xx").await;
            }
            yield_now().await;
        }
        assert!(!pump.read_next(false).await);
        assert_eq!(pump.room().now_or_never(), None);
        // The kernel tells of the line no more, so only the room can end the wait.
        while !has_room(&pump) {
            reader.read_u8().await.expect("read");
            yield_now().await;
        }
        assert_eq!(pump.room().now_or_never(), Some(()));
        assert!(pump.read_next(false).await);
    }
}
