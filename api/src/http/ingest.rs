//! `POST /v1/runs/{run}/events`: publish over HTTP, from any language, with the guarantees of the
//! append script.
//!
//! The body is NDJSON, one event a line, or, with `Content-Type: text/plain`, plain lines that become
//! `output` events of `?variation=`. It is taken as it comes, so `make 2>&1 | curl -T - ...` is live:
//! events are appended in batches, [`LINGER`] after the first of them at the latest.
//!
//! - `Producer-Id` names the producer (a UUID, or any text, which then counts within the run). Without
//!   it the request is a producer of its own.
//! - `Producer-Seq` is the seq of the body's first event. With it a request may be sent again after any
//!   failure: what is known is not stored twice. Without it the body goes behind what is there.
//! - `Producer-Epoch` fences: a larger one refuses all smaller ones.
//!
//! The answer says how far the producer's events are in Redis (`stored`) and in Postgres (`durable`). A
//! gap is 409 with the seq that must come first, a newer epoch is 409 as well, a run that holds as much
//! as it may is 429 with `Retry-After`. Bodies may be compressed (gzip, zstd). Limits: [`MAX_BYTES`] and
//! [`MAX_TIME`] a request, [`MAX_SILENCE`] between two pieces of it.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::event::{self, Head, Kind, Text};
use runcast_common::id::EventId;
use runcast_common::limits::{
    MAX_CHUNK_BYTES, MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS, MAX_EVENT_BYTES, MAX_VARIATIONS,
};
use runcast_common::script::{Append, Appended, Cap, Outcome};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower_http::decompression::RequestDecompressionLayer;
use uuid::Uuid;

use super::Gateway;
use super::problem::Problem;
use super::query::Query;
use super::runs::admit;
use crate::access::Scope;
use crate::access::principal::Principal;

/// Bytes of one request, after decompression: more than an hour of a chatty job.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Longest request: whoever publishes for longer sends the rest with the next one.
const MAX_TIME: Duration = Duration::from_secs(3600);

/// Longest silence within a request. A job may think for minutes; a client that is gone never speaks.
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// How long events wait for company.
const LINGER: Duration = Duration::from_millis(10);

/// How long a request waits for room in a full run before it is refused.
const FULL_PATIENCE: Duration = Duration::from_secs(10);

/// Longest name of a producer in bytes.
const MAX_PRODUCER_BYTES: usize = 200;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/v1/runs/{run}/events", post(ingest).put(ingest))
        .layer(RequestDecompressionLayer::new())
}

#[derive(Debug, Serialize)]
struct Accepted {
    producer: Uuid,
    /// Highest seq of the producer that Redis holds.
    stored: u64,
    /// Highest seq of the producer that Postgres holds.
    durable: u64,
    /// Id of the run's last event.
    last_id: EventId,
}

async fn ingest(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Accepted>, Problem> {
    let format = Format::of(&headers, &query)?;
    let (run, _) = admit(&gateway, &principal, Scope::Publish, &id).await?;
    let mut producer = Producer::of(&gateway, run, &headers).await?;
    let mut lines = Lines::new(body.into_data_stream(), format);
    loop {
        let batch = lines.batch().await?;
        if batch.count > 0 {
            producer.append(&gateway, &batch).await?;
        }
        if batch.is_last {
            return Ok(Json(producer.accepted()));
        }
    }
}

/// How the body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Events,
    Text { variation: u16 },
}

impl Format {
    fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
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

/// Event lines of one append.
#[derive(Debug, Default)]
struct Batch {
    body: Vec<u8>,
    count: u64,
    is_last: bool,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.count >= MAX_ENTRY_EVENTS as u64 || self.body.len() >= MAX_ENTRY_BYTES
    }
}

/// Cuts a body into event lines and those into batches.
struct Lines {
    body: BodyDataStream,
    format: Format,
    /// What has come and is not in a batch yet.
    rest: Vec<u8>,
    ended: bool,
    bytes: usize,
    /// Number of the last line, for messages.
    line: u64,
    until: Instant,
}

impl Lines {
    fn new(body: BodyDataStream, format: Format) -> Self {
        Self {
            body,
            format,
            rest: Vec::new(),
            ended: false,
            bytes: 0,
            line: 0,
            until: Instant::now() + MAX_TIME,
        }
    }

    /// The next batch: full, or as much as came within [`LINGER`], or the last one.
    async fn batch(&mut self) -> Result<Batch, Problem> {
        let mut batch = Batch::default();
        let mut linger = None;
        loop {
            self.cut(&mut batch)?;
            if self.ended && self.rest.is_empty() {
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

    /// Takes the next piece of the body. May be dropped while it waits.
    async fn read(&mut self) -> Result<(), Problem> {
        let silence = MAX_SILENCE.min(self.until.saturating_duration_since(Instant::now()));
        let piece = match timeout(silence, self.body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                return Err(Problem::bad_request(format!("the body broke off: {error}")));
            }
            Ok(None) => {
                self.ended = true;
                return Ok(());
            }
            Err(_elapsed) => {
                let detail = format!(
                    "the body took longer than {MAX_TIME:?}, or said nothing for {MAX_SILENCE:?}"
                );
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
        };
        self.bytes += piece.len();
        if self.bytes > MAX_BYTES {
            let detail = format!(
                "the body is over the limit of {MAX_BYTES} bytes: send the rest with another request"
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
            let end = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if self.ended && !rest.is_empty() => rest.len(),
                // Text need not wait for the end of a line that is longer than an event may be.
                None if rest.len() >= MAX_CHUNK_BYTES && self.format != Format::Events => {
                    MAX_CHUNK_BYTES
                }
                None if rest.len() > MAX_EVENT_BYTES => rest.len(),
                None => break Ok(()),
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

/// Who publishes with this request, and how far it has come.
struct Producer {
    run: Uuid,
    id: Uuid,
    epoch: u64,
    base: u64,
    next: u64,
    last: Appended,
}

impl Producer {
    async fn of(gateway: &Gateway, run: Uuid, headers: &HeaderMap) -> Result<Self, Problem> {
        let id = match text(headers, "producer-id")? {
            None => Uuid::now_v7(),
            Some(name) if name.len() > MAX_PRODUCER_BYTES => {
                let detail = format!("Producer-Id is over the limit of {MAX_PRODUCER_BYTES} bytes");
                return Err(Problem::bad_request(detail));
            }
            Some(name) => {
                Uuid::try_parse(name).unwrap_or_else(|_a_name| Uuid::new_v5(&run, name.as_bytes()))
            }
        };
        let mut producer = Self {
            run,
            id,
            epoch: number(headers, "producer-epoch")?.unwrap_or(0),
            base: 0,
            next: 0,
            last: Appended {
                outcome: Outcome::Full,
                last: EventId::ZERO,
                durable: 0,
            },
        };
        // What Postgres holds counts even if Redis has forgotten this producer.
        producer.base = gateway.store().durable(run, id).await?;
        let stored = match producer.call(gateway, 0, b"").await?.outcome {
            Outcome::Stored { stored } => stored,
            outcome => return Err(refusal(outcome, &producer.last)),
        };
        producer.next = match number(headers, "producer-seq")? {
            Some(0) => return Err(Problem::bad_request("Producer-Seq counts from 1")),
            Some(first) => first,
            None => stored + 1,
        };
        Ok(producer)
    }

    /// Appends a batch; what the run already holds of it is left out, and while the run is full the
    /// sender waits, which a streamed body feels as back-pressure.
    async fn append(&mut self, gateway: &Gateway, batch: &Batch) -> Result<(), Problem> {
        let (mut body, mut count) = (&batch.body[..], batch.count);
        let mut full = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let patience = Instant::now() + FULL_PATIENCE;
        while count > 0 {
            match self.call(gateway, count, body).await?.outcome {
                Outcome::Stored { .. } => {
                    self.next += count;
                    count = 0;
                }
                Outcome::Gap { expected }
                    if expected > self.next && expected < self.next + count =>
                {
                    let known = expected - self.next;
                    body = behind(body, known);
                    count -= known;
                    self.next = expected;
                }
                Outcome::Full if Instant::now() < patience => sleep(full.next_wait()).await,
                outcome => return Err(refusal(outcome, &self.last)),
            }
        }
        Ok(())
    }

    async fn call(
        &mut self,
        gateway: &Gateway,
        count: u64,
        body: &[u8],
    ) -> Result<Appended, Problem> {
        let append = Append {
            producer: self.id,
            producer_epoch: self.epoch,
            base: self.base,
            acked: 0,
            first: self.next,
            count,
            body,
            cap: Cap::default(),
        };
        let keys = gateway.keys().run(self.run);
        let appended = gateway
            .redis()
            .run(async |connection| append.call(&keys, connection).await)
            .await?;
        self.last = appended;
        Ok(appended)
    }

    fn accepted(&self) -> Accepted {
        Accepted {
            producer: self.id,
            stored: self.next.saturating_sub(1),
            durable: self.last.durable,
            last_id: self.last.last,
        }
    }
}

/// What follows the first `lines` lines.
fn behind(body: &[u8], lines: u64) -> &[u8] {
    let skip = usize::try_from(lines).unwrap_or(usize::MAX);
    match skip
        .checked_sub(1)
        .and_then(|last| memchr::memchr_iter(b'\n', body).nth(last))
    {
        Some(end) => &body[end + 1..],
        None => body,
    }
}

fn refusal(outcome: Outcome, last: &Appended) -> Problem {
    let durable = last.durable;
    match outcome {
        Outcome::Gap { expected } => Problem::new(
            StatusCode::CONFLICT,
            format!("events are missing: the next Producer-Seq must be {expected}"),
        )
        .with("expected", expected),
        Outcome::Fenced { by } => Problem::new(
            StatusCode::CONFLICT,
            format!("a newer process of this producer has taken over, with Producer-Epoch {by}"),
        )
        .with("epoch", by),
        Outcome::Full | Outcome::Stored { .. } => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "the run holds as much as it may until it is stored: send the rest again later",
        ),
    }
    .with("durable", durable)
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    match headers.get(name).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(Err(_not_ascii)) => Err(Problem::bad_request(format!("{name} is not ASCII"))),
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = text(headers, name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if number < 1 << 53 => Ok(Some(number)),
        _ => Err(Problem::bad_request(format!(
            "{name} must be a number below 2^53"
        ))),
    }
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
        let mut lines = Lines::new(body.into_data_stream(), format);
        let mut batches = Vec::new();
        loop {
            let batch = lines.batch().await?;
            if batch.count > 0 {
                batches.push((batch.count, String::from_utf8(batch.body).expect("UTF-8")));
            }
            if batch.is_last {
                return Ok(batches);
            }
        }
    }

    #[tokio::test]
    async fn lines_are_found_however_the_body_is_cut() {
        let pieces: [&[u8]; 4] = [
            b"{\"kind\":\"log\"}\r",
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
    async fn a_bad_line_is_named_by_its_number() {
        let problem = read(&[b"{\"kind\":\"log\"}\nnonsense\n"], Format::Events)
            .await
            .expect_err("400");
        assert!(format!("{problem:?}").contains("line 2"), "{problem:?}");
    }

    #[test]
    fn what_is_known_is_left_out() {
        assert_eq!(behind(b"a\nb\nc\n", 0), b"a\nb\nc\n");
        assert_eq!(behind(b"a\nb\nc\n", 2), b"c\n");
    }
}
