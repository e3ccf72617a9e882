//! One viewer on a socket.
//!
//! A frame that the socket took in part must be finished before anything else. Its rest is copied,
//! so a slow viewer never keeps a batch in cachery. The cursor moves to that frame, and the rest of
//! the batch is looked up again when the socket takes more. So cachery does not grow with slow
//! viewers.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use mio::net::TcpStream;
use runcast_common::protocol::event_id::EventId;

use super::mailbox::NewConnection;
use super::metrics::CloseReason;
use crate::sse::{KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE};
use crate::viewer::{Next, SelectionCache, Viewer};

/// Bytes that one viewer gets before the thread serves others.
const MAX_WRITE_BYTES: u64 = 1024 * 1024;

/// A viewer, its socket, and the rest of the frame that the socket has taken in part.
#[derive(Debug)]
pub(super) struct ViewerConnection {
    pub(super) socket: TcpStream,
    pub(super) viewer: Viewer,
    /// Its index among the connections of its run.
    pub(super) index_in_group: usize,
    /// Goes out before anything else.
    rest: Bytes,
    /// The connection closes after the rest.
    closes: Option<CloseReason>,
    /// When the socket last took something.
    sent_at: Instant,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// Nothing is left to send, or the socket takes no more.
    Done,
    /// There is more to send, after other connections had their share.
    HasMore,
    /// The connection is closed.
    Closed(CloseReason),
}

impl ViewerConnection {
    pub(super) fn new(new: NewConnection) -> Self {
        let mut head = BytesMut::from(&new.head[..]);
        head.extend_from_slice(RETRY_LINE);
        Self {
            socket: TcpStream::from_std(new.socket),
            viewer: new.viewer,
            index_in_group: 0,
            rest: head.freeze(),
            closes: None,
            sent_at: Instant::now(),
        }
    }

    /// Sends what the viewer has to get, as long as the socket takes it. Adds the bytes to `sent`.
    pub(super) fn write(
        &mut self,
        cache: &mut SelectionCache,
        now: Instant,
        sent: &mut u64,
    ) -> WriteOutcome {
        let before = *sent;
        let outcome = self.write_all(cache, sent);
        if *sent > before {
            self.sent_at = now;
        }
        outcome
    }

    fn write_all(&mut self, cache: &mut SelectionCache, sent: &mut u64) -> WriteOutcome {
        let start = *sent;
        loop {
            // The rest of the last frame, and the end of the stream after it.
            match self.write_rest(sent) {
                Ok(true) => {}
                Ok(false) => return WriteOutcome::Done,
                Err(error) => return WriteOutcome::Closed(close_reason(&error)),
            }
            if let Some(reason) = self.closes {
                return match self.socket.shutdown(std::net::Shutdown::Write) {
                    Ok(()) => WriteOutcome::Closed(reason),
                    Err(error) => WriteOutcome::Closed(close_reason(&error)),
                };
            }
            if *sent - start > MAX_WRITE_BYTES {
                return WriteOutcome::HasMore;
            }
            // Then whatever the viewer gets next.
            match self.viewer.next(cache) {
                Next::Frames(selection) => match self.write_pieces(&selection.pieces, sent) {
                    Ok(None) => self.viewer.advance_to(selection.upto),
                    Ok(Some(rest)) => {
                        let (rest, id) = unfinished_frame(&selection.pieces, rest);
                        let Some(id) = id else {
                            tracing::error!(run = %self.viewer.run(), "closing a viewer: its frame has no id to resume from");
                            return WriteOutcome::Closed(CloseReason::Failed);
                        };
                        self.rest = rest;
                        self.viewer.advance_to(id);
                        return WriteOutcome::Done;
                    }
                    Err(error) => return WriteOutcome::Closed(close_reason(&error)),
                },
                Next::Notice(frame) => self.rest = frame,
                Next::Last(frame) => self.close_after(&frame, CloseReason::Ended),
                Next::Wait => return WriteOutcome::Done,
            }
        }
    }

    /// Closes the connection after this frame.
    pub(super) fn close_after(&mut self, frame: &[u8], reason: CloseReason) {
        if self.closes.is_none() {
            self.rest = [&self.rest[..], frame].concat().into();
            self.closes = Some(reason);
        }
    }

    /// Returns whether the socket has taken all of the rest.
    fn write_rest(&mut self, sent: &mut u64) -> io::Result<bool> {
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
        // Frees the memory of the rest.
        self.rest = Bytes::new();
        Ok(true)
    }

    /// Returns where the socket stopped, as piece and offset, if it did not take everything.
    fn write_pieces(
        &mut self,
        pieces: &[Bytes],
        sent: &mut u64,
    ) -> io::Result<Option<(usize, usize)>> {
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

    /// Reads and discards what the client sends. Returns whether it has closed the connection.
    pub(super) fn discard_input(&mut self) -> bool {
        let mut discarded = [0; 512];
        loop {
            match self.socket.read(&mut discarded) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Sends a keep-alive if one is due, and closes a connection that took nothing for
    /// `stall_timeout`.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        stall_timeout: Duration,
        sent: &mut u64,
    ) -> WriteOutcome {
        let silent = now.saturating_duration_since(self.sent_at);
        if self.is_stuck() {
            return match silent >= stall_timeout {
                true => WriteOutcome::Closed(CloseReason::Stalled),
                false => WriteOutcome::Done,
            };
        }
        if silent < KEEP_ALIVE {
            return WriteOutcome::Done;
        }
        self.rest = Bytes::from_static(KEEP_ALIVE_LINE);
        self.sent_at = now;
        match self.write_rest(sent) {
            Ok(_) => WriteOutcome::Done,
            Err(error) => WriteOutcome::Closed(close_reason(&error)),
        }
    }

    /// True if the socket has taken the last frame in part only.
    pub(super) const fn is_stuck(&self) -> bool {
        !self.rest.is_empty()
    }
}

fn close_reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => CloseReason::Left,
        _ => CloseReason::Failed,
    }
}

/// The rest of the frame at which the socket stopped, and the id of that frame. Pieces hold whole
/// frames, each with its id before the empty line at its end.
fn unfinished_frame(pieces: &[Bytes], (at, offset): (usize, usize)) -> (Bytes, Option<EventId>) {
    const FRAME_END: &[u8] = b"\n\n";
    let piece = &pieces[at];
    let end = memmem::find(&piece[offset..], FRAME_END)
        .map_or(piece.len(), |end| offset + end + FRAME_END.len());
    let frame = piece[..end].strip_suffix(FRAME_END).unwrap_or_default();
    let id = memmem::rfind(frame, b"\nid: ").map(|id| &frame[id + 5..]);
    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    (Bytes::copy_from_slice(&piece[offset..end]), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_finished_wherever_the_socket_stops() {
        let frames = [
            "event: a\ndata: 1\nid: 7-1\n\n",
            "event: b\ndata: 22\nid: 7-2\n\n",
        ];
        let pieces = [
            Bytes::from(frames.concat()),
            Bytes::from("event: c\ndata: 3\nid: 7-3\n\n"),
        ];
        for offset in 0..pieces[0].len() {
            let (rest, id) = unfinished_frame(&pieces, (0, offset));
            let taken = &pieces[0][..offset];
            let whole = [taken, &rest[..]].concat();
            // A frame of which only the last newline is left is finished with the next one.
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
        let (rest, id) = unfinished_frame(&pieces, (1, last));
        assert_eq!((&rest[..], id), (&b"\n"[..], Some(EventId::new(7, 3))));
    }
}
