//! One viewer on a socket.
//!
//! A frame that the socket took in part must be finished before anything else, so its rest is kept, copied: nothing that
//! a slow viewer has not taken holds a batch in memory. The cursor then stands at that frame, and the rest of the
//! batch is looked up again when the socket takes more.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use mio::net::TcpStream;
use runcast_common::protocol::event_id::EventId;

use super::super::viewer::{Next, SelectionCache, Viewer};
use super::pool::{CloseReason, NewConnection};
use crate::sse::{KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE};

/// Bytes that a viewer is given before others have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// A viewer, its socket, and what that has not taken of the frame at hand.
#[derive(Debug)]
pub(super) struct ViewerConnection {
    pub(super) socket: TcpStream,
    pub(super) viewer: Viewer,
    /// Where it stands among the seats of its run.
    pub(super) place: usize,
    rest: Bytes,
    /// Nothing follows the rest.
    closes: Option<CloseReason>,
    /// When the socket last took something.
    sent_at: Instant,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// There is nothing more for now, or the socket takes nothing more.
    Done,
    /// There is more; others first.
    Hungry,
    /// The viewer is gone.
    Gone(CloseReason),
}

impl ViewerConnection {
    pub(super) fn new(arrival: NewConnection) -> Self {
        let mut head = BytesMut::from(&arrival.head[..]);
        head.extend_from_slice(RETRY_LINE);
        Self {
            socket: TcpStream::from_std(arrival.socket),
            viewer: arrival.viewer,
            place: 0,
            rest: head.freeze(),
            closes: None,
            sent_at: Instant::now(),
        }
    }

    /// Sends what there is, for as long as the socket takes it. Adds the bytes that it took.
    pub(super) fn serve(
        &mut self,
        memo: &mut SelectionCache,
        now: Instant,
        sent: &mut u64,
    ) -> WriteOutcome {
        let before = *sent;
        let turn = self.send_on(memo, sent);
        if *sent > before {
            self.sent_at = now;
        }
        turn
    }

    fn send_on(&mut self, memo: &mut SelectionCache, sent: &mut u64) -> WriteOutcome {
        let start = *sent;
        loop {
            match self.send_rest(sent) {
                Ok(true) => {}
                Ok(false) => return WriteOutcome::Done,
                Err(error) => return WriteOutcome::Gone(gone(&error)),
            }
            if let Some(why) = self.closes {
                // The end of the stream, after all that was written.
                return match self.socket.shutdown(std::net::Shutdown::Write) {
                    Ok(()) => WriteOutcome::Gone(why),
                    Err(error) => WriteOutcome::Gone(gone(&error)),
                };
            }
            if *sent - start > TURN_BYTES as u64 {
                return WriteOutcome::Hungry;
            }
            match self.viewer.next(memo) {
                Next::Frames(selection) => match self.send(&selection.pieces, sent) {
                    Ok(None) => self.viewer.reached(selection.upto),
                    Ok(Some(rest)) => {
                        let (rest, id) = unfinished(&selection.pieces, rest);
                        let Some(id) = id else {
                            tracing::error!(run = %self.viewer.run(), "a frame without an id");
                            return WriteOutcome::Gone(CloseReason::Failed);
                        };
                        self.rest = rest;
                        self.viewer.reached(id);
                        return WriteOutcome::Done;
                    }
                    Err(error) => return WriteOutcome::Gone(gone(&error)),
                },
                Next::Notice(frame) => self.rest = frame,
                Next::Last(frame) => self.close(&frame, CloseReason::Ended),
                Next::Wait => return WriteOutcome::Done,
            }
        }
    }

    /// The socket closes behind this frame.
    pub(super) fn close(&mut self, frame: &[u8], why: CloseReason) {
        if self.closes.is_none() {
            self.rest = [&self.rest[..], frame].concat().into();
            self.closes = Some(why);
        }
    }

    /// True once the socket has taken all of the rest.
    fn send_rest(&mut self, sent: &mut u64) -> io::Result<bool> {
        while !self.rest.is_empty() {
            match self.socket.write(&self.rest) {
                Ok(length) => {
                    self.rest.advance(length);
                    *sent += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Nothing is kept that is not needed.
        self.rest = Bytes::new();
        Ok(true)
    }

    /// Gives where it stopped, as piece and offset, if the socket did not take everything.
    fn send(&mut self, pieces: &[Bytes], sent: &mut u64) -> io::Result<Option<(usize, usize)>> {
        let (mut at, mut offset) = (0, 0);
        while at < pieces.len() {
            let mut slices = [IoSlice::new(&[]); 64];
            let ahead = pieces[at..].iter().zip(&mut slices).map(|(piece, slice)| {
                *slice = IoSlice::new(piece);
            });
            let count = ahead.count();
            slices[0] = IoSlice::new(&pieces[at][offset..]);
            match self.socket.write_vectored(&slices[..count]) {
                Ok(mut length) => {
                    *sent += length as u64;
                    while at < pieces.len() && length >= pieces[at].len() - offset {
                        length -= pieces[at].len() - offset;
                        (at, offset) = (at + 1, 0);
                    }
                    offset += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Some((at, offset)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// A viewer has nothing to say: what comes is thrown away. True if it has gone.
    pub(super) fn hear(&mut self) -> bool {
        let mut nothing = [0; 512];
        loop {
            match self.socket.read(&mut nothing) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Keeps the connection alive, or gives it up. To be called now and then.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        patience: Duration,
        sent: &mut u64,
    ) -> WriteOutcome {
        let silent = now.saturating_duration_since(self.sent_at);
        if self.is_stuck() {
            return match silent >= patience {
                true => WriteOutcome::Gone(CloseReason::Stalled),
                false => WriteOutcome::Done,
            };
        }
        if silent < KEEP_ALIVE {
            return WriteOutcome::Done;
        }
        self.rest = Bytes::from_static(KEEP_ALIVE_LINE);
        self.sent_at = now;
        match self.send_rest(sent) {
            Ok(_) => WriteOutcome::Done,
            Err(error) => WriteOutcome::Gone(gone(&error)),
        }
    }

    /// True if the socket takes nothing at the moment.
    pub(super) const fn is_stuck(&self) -> bool {
        !self.rest.is_empty()
    }
}

fn gone(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => CloseReason::Left,
        _ => CloseReason::Failed,
    }
}

/// What is left of the frame that was being sent when the socket took no more, and the id of that frame. Pieces hold
/// whole frames, each with its id in front of the empty line at its end.
fn unfinished(pieces: &[Bytes], (at, offset): (usize, usize)) -> (Bytes, Option<EventId>) {
    const END: &[u8] = b"\n\n";
    let piece = &pieces[at];
    let end =
        memmem::find(&piece[offset..], END).map_or(piece.len(), |end| offset + end + END.len());
    let frame = piece[..end].strip_suffix(END).unwrap_or_default();
    let id = memmem::rfind(frame, b"\nid: ").map(|id| &frame[id + 5..]);
    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    (Bytes::copy_from_slice(&piece[offset..end]), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wherever_the_socket_stops_a_frame_is_finished() {
        let frames = [
            "event: a\ndata: 1\nid: 7-1\n\n",
            "event: b\ndata: 22\nid: 7-2\n\n",
        ];
        let pieces = [
            Bytes::from(frames.concat()),
            Bytes::from("event: c\ndata: 3\nid: 7-3\n\n"),
        ];
        for offset in 0..pieces[0].len() {
            let (rest, id) = unfinished(&pieces, (0, offset));
            let taken = &pieces[0][..offset];
            let whole = [taken, &rest[..]].concat();
            // One that has all but its last newline is finished with the next one.
            let first = frames[0].len();
            let expected = if offset < first - 1 { 1 } else { 2 };
            assert_eq!(id, Some(EventId::new(7, expected)), "{offset}");
            let end = if expected == 1 {
                first
            } else {
                pieces[0].len()
            };
            assert_eq!(whole, pieces[0][..end], "{offset}");
        }
        let last = pieces[1].len() - 1;
        let (rest, id) = unfinished(&pieces, (1, last));
        assert_eq!((&rest[..], id), (&b"\n"[..], Some(EventId::new(7, 3))));
    }
}
