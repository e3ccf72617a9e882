//! Reads batches of event lines from the body of a request, while it is still being sent.
//!
//! Data: the bytes of unfinished lines, at most one event and one piece of the body; what decoders
//! take is bounded by [`open_bodies`](super::open_bodies). Time:
//! [`MAX_BODY_TIME`] for a request, [`MAX_PAUSE`] for one piece of its body, [`LINGER`] for a
//! batch.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt as _;
use runcast_common::protocol::event::{self, Head, Kind, Text};
use runcast_common::protocol::limits::{
    MAX_CHUNK_BYTES, MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS, MAX_EVENT_BYTES, MAX_VARIATIONS,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::decoder::{Encoding, Pieces};
use super::open_bodies::OpenBody;
use crate::extract::query::Query;
use crate::problem::Problem;

/// Largest body of a request, after decompression: more than an hour of a chatty job.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// Longest request: a client that publishes for longer sends the rest with the next request.
pub(super) const MAX_BODY_TIME: Duration = Duration::from_secs(3600);

/// Longest pause within a request. A job may think for minutes; a client that is gone sends nothing
/// more.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(600);

/// How long an event waits for others to be appended with it.
pub(super) const LINGER: Duration = Duration::from_millis(10);

/// How the body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Events,
    Text { variation: u16 },
}

impl Format {
    pub(super) fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let variation: u16 = query.parse("variation")?.unwrap_or(0);
        if variation >= MAX_VARIATIONS {
            let detail =
                format!("variation {variation} is not below the limit of {MAX_VARIATIONS}");
            return Err(Problem::bad_request(detail));
        }
        Ok(match content_type.split(';').next().map(str::trim) {
            Some("text/plain") => Self::Text { variation },
            _ => Self::Events,
        })
    }
}

/// The event lines of one append.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) body: Vec<u8>,
    pub(super) count: u64,
    pub(super) is_last: bool,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.count >= MAX_ENTRY_EVENTS as u64 || self.body.len() >= MAX_ENTRY_BYTES
    }
}

/// Splits a body into event lines, and these into batches.
pub(super) struct LineBatches {
    body: Pieces,
    encoding: Encoding,
    format: Format,
    /// What was read and is not in a batch yet.
    rest: Vec<u8>,
    /// How much of it, from the beginning, holds no line end.
    searched: usize,
    has_ended: bool,
    bytes: usize,
    /// Number of the last line, for messages.
    line: u64,
    deadline: Instant,
    _open: Option<OpenBody>,
}

impl LineBatches {
    pub(super) fn new(
        body: Body,
        encoding: Encoding,
        format: Format,
        open: Option<OpenBody>,
    ) -> Self {
        Self {
            body: encoding.decode(body),
            encoding,
            format,
            rest: Vec::new(),
            searched: 0,
            _open: open,
            has_ended: false,
            bytes: 0,
            line: 0,
            deadline: Instant::now() + MAX_BODY_TIME,
        }
    }

    /// The next batch: full, or with what came within [`LINGER`], or the last one.
    pub(super) async fn next(&mut self) -> Result<Batch, Problem> {
        let mut batch = Batch::default();
        let mut linger = None;
        loop {
            self.cut(&mut batch)?;
            if self.has_ended && self.rest.is_empty() {
                batch.is_last = true;
            }
            if batch.is_last || batch.is_full() {
                return Ok(batch);
            }
            if batch.count > 0 {
                let until = *linger.get_or_insert_with(|| Instant::now() + LINGER);
                match timeout_at(until, self.read()).await {
                    Ok(read) => read?,
                    Err(_elapsed) => return Ok(batch),
                }
            } else {
                self.read().await?;
            }
        }
    }

    /// Reads the next piece of the body. It is cancel-safe.
    async fn read(&mut self) -> Result<(), Problem> {
        let wait = MAX_PAUSE.min(self.deadline.saturating_duration_since(Instant::now()));
        let piece = match timeout(wait, self.body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                return Err(Problem::bad_request(self.encoding.broken(&error)));
            }
            Ok(None) => {
                self.has_ended = true;
                return Ok(());
            }
            Err(_elapsed) => {
                let detail = format!(
                    "the body took longer than {MAX_BODY_TIME:?}, or paused for {MAX_PAUSE:?}"
                );
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
        };
        self.bytes += piece.len();
        if self.bytes > MAX_BODY_BYTES {
            let detail = format!(
                "the body is over the limit of {MAX_BODY_BYTES} bytes: send the rest with another request"
            );
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    /// Moves finished lines into the batch.
    fn cut(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        let mut at = 0;
        let result = loop {
            if batch.is_full() {
                break Ok(());
            }
            let rest = &self.rest[at..];
            // A line that comes in many pieces is searched once.
            let searched = std::mem::take(&mut self.searched);
            let end = match memchr::memchr(b'\n', &rest[searched..]) {
                Some(end) => searched + end + 1,
                None if self.has_ended && !rest.is_empty() => rest.len(),
                // Text is cut where a line is longer than an event may be.
                None if rest.len() >= MAX_CHUNK_BYTES && self.format != Format::Events => {
                    MAX_CHUNK_BYTES
                }
                None if rest.len() > MAX_EVENT_BYTES => rest.len(),
                None => {
                    self.searched = rest.len();
                    break Ok(());
                }
            };
            let line = &rest[..end];
            self.line += 1;
            if let Err(problem) = add(batch, line, self.format, self.line) {
                break Err(problem);
            }
            at += end;
        };
        self.rest.drain(..at);
        result
    }
}

fn add(batch: &mut Batch, line: &[u8], format: Format, number: u64) -> Result<(), Problem> {
    match format {
        Format::Text { variation } => {
            for chunk in line.chunks(MAX_CHUNK_BYTES) {
                let text = Text::from_chunk(None, chunk);
                event::write_line(
                    &mut batch.body,
                    Kind::Output,
                    variation,
                    event::now_ms(),
                    &text,
                )
                .map_err(|error| Problem::bad_request(format!("line {number}: {error}")))?;
                batch.count += 1;
            }
        }
        Format::Events => {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // Some programs write a byte order mark, which is no part of JSON.
            let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
            if line.is_empty() {
                return Ok(());
            }
            Head::parse(line)
                .map_err(|error| Problem::bad_request(format!("line {number}: {error}")))?;
            batch.body.extend_from_slice(line);
            batch.body.push(b'\n');
            batch.count += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: &[&'static [u8]], format: Format) -> Result<Vec<(u64, String)>, Problem> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(*piece))
            .collect();
        let body = Body::from_stream(futures::stream::iter(pieces));
        let mut batches_of_body = LineBatches::new(body, Encoding::Identity, format, None);
        let mut batches = Vec::new();
        loop {
            let batch = batches_of_body.next().await?;
            if batch.count > 0 {
                batches.push((batch.count, String::from_utf8(batch.body).expect("UTF-8")));
            }
            if batch.is_last {
                return Ok(batches);
            }
        }
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_body_is_split() {
        let pieces: [&[u8]; 4] = [
            b"\xef\xbb\xbf{\"kind\":\"log\"}\r",
            b"\n\n{\"ki",
            b"nd\":\"log\",",
            b"\"x\":1}",
        ];
        let batches = read(&pieces, Format::Events).await.expect("events");
        let all: String = batches.iter().map(|(_, body)| body.as_str()).collect();
        assert_eq!(all, "{\"kind\":\"log\"}\n{\"kind\":\"log\",\"x\":1}\n");
    }

    #[tokio::test]
    async fn plain_lines_become_output() {
        let batches = read(&[b"one\ntw", b"o"], Format::Text { variation: 3 })
            .await
            .expect("events");
        let all: String = batches.iter().map(|(_, body)| body.as_str()).collect();
        assert!(
            all.contains("\"variation\":3") && all.contains("\"text\":\"one\\n\""),
            "{all}"
        );
        assert!(all.contains("\"text\":\"two\""), "{all}");
    }

    #[tokio::test]
    async fn a_malformed_line_is_named_by_its_number() {
        let problem = read(&[b"{\"kind\":\"log\"}\nnonsense\n"], Format::Events)
            .await
            .expect_err("400");
        assert!(format!("{problem:?}").contains("line 2"), "{problem:?}");
    }
}
