//! An SSE client that is stricter than any browser: it checks the order of fields, line ends and
//! keep-alive lines. Every wait has a deadline.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use runcast_common::protocol::event_id::EventId;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::eventually::WAIT_DEADLINE;

/// One frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `event:`.
    pub event: String,
    /// `data:`, unchanged.
    pub data: String,
    /// `id:`.
    pub id: EventId,
    /// `retry:`, where there is one.
    pub retry: Option<u64>,
}

impl Frame {
    /// The parsed data.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("data of a frame is no JSON ({error}): {self:?}"))
    }

    /// Whether the frame is about the connection itself rather than an event of the run.
    pub fn is_connection_notice(&self) -> bool {
        matches!(
            self.event.as_str(),
            "ready" | "degraded" | "closing" | "end" | "gap"
        ) && self.json().get("producer").is_none()
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Sse {
    response: Response,
    buffer: Vec<u8>,
    keep_alives: usize,
    frames: usize,
    with_heartbeats: bool,
}

impl Sse {
    /// Takes the response to a request for a stream. It must be an event stream, with the headers
    /// that keep proxies from buffering.
    pub async fn from_response(response: Response) -> Self {
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.text().await.unwrap_or_default();
            panic!("expected a stream, got {status}: {body}");
        }
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        assert!(header("content-type").starts_with("text/event-stream"));
        assert_eq!(header("x-accel-buffering"), "no");
        assert_eq!(header("cache-control"), "no-cache, no-transform");
        Self {
            response,
            buffer: Vec::new(),
            keep_alives: 0,
            frames: 0,
            with_heartbeats: false,
        }
    }

    /// Also returns heartbeats of agents and updates of the run, which are skipped by default.
    pub fn with_heartbeats(mut self) -> Self {
        self.with_heartbeats = true;
        self
    }

    /// The count of received keep-alive lines.
    pub fn keep_alives(&self) -> usize {
        self.keep_alives
    }

    /// The next frame, within [`WAIT_DEADLINE`]. Panics when the stream ends before.
    pub async fn next(&mut self) -> Frame {
        let deadline = Instant::now() + WAIT_DEADLINE;
        match self.next_before(deadline).await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!(
                "the stream ended after {} frames; one more was expected",
                self.frames
            ),
            Err(TimedOut) => panic!(
                "no frame within {WAIT_DEADLINE:?}, after {} frames",
                self.frames
            ),
        }
    }

    /// The next frame; none if the stream has ended or failed.
    pub async fn next_before(&mut self, deadline: Instant) -> Result<Option<Frame>, TimedOut> {
        let mut fields = Vec::new();
        while let Some(line) = self.line(deadline).await? {
            if line == ":" {
                assert!(fields.is_empty(), "a keep-alive within a frame: {fields:?}");
                self.keep_alives += 1;
            } else if !line.is_empty() {
                fields.push(line);
            } else {
                let frame = frame(&fields);
                if self.frames == 0 {
                    assert!(
                        frame.retry.is_some(),
                        "the first frame lacks retry: {frame:?}"
                    );
                }
                self.frames += 1;
                // Heartbeats arrive at any time, and most stories are not about them.
                if ["heartbeat", "state"].contains(&frame.event.as_str()) && !self.with_heartbeats {
                    fields.clear();
                    continue;
                }
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Waits for the next keep-alive line on an idle stream; panics on anything else.
    pub async fn expect_keep_alive(&mut self, within: Duration) -> Result<(), TimedOut> {
        let line = self.line(Instant::now() + within).await?;
        assert_eq!(line.as_deref(), Some(":"), "a keep-alive was expected");
        self.keep_alives += 1;
        Ok(())
    }

    /// All frames up to and including the first one of this event.
    pub async fn read_until(&mut self, event: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            let found = frame.event == event;
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }

    /// One line without its end; none if the stream has ended or failed.
    async fn line(&mut self, deadline: Instant) -> Result<Option<String>, TimedOut> {
        loop {
            if let Some(length) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=length).collect();
                line.pop();
                assert!(line.len() < 512 * 1024, "a line of {} bytes", line.len());
                assert!(!line.contains(&b'\r'), "a carriage return in a stream");
                assert!(
                    !line.starts_with(b"\xef\xbb\xbf"),
                    "a byte order mark in a stream"
                );
                return Ok(Some(String::from_utf8(line).expect("a stream is UTF-8")));
            }
            match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.buffer.extend_from_slice(&bytes),
                // The rest of the buffer is an incomplete line, which a client must ignore.
                Ok(Ok(None) | Err(_)) => return Ok(None),
                Err(_elapsed) => return Err(TimedOut),
            }
        }
    }
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

/// Parses the fields of a frame. They must be event, data and id, in this order and once each: a
/// frame that is cut before its id must not move a cursor.
fn frame(lines: &[String]) -> Frame {
    let mut retry = None;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("a line that is no field: {line:?}"));
        if name == "retry" {
            retry = Some(value.parse().expect("retry is a number"));
        } else {
            fields.push((name, value));
        }
    }
    let [("event", event), ("data", data), ("id", id)] = fields[..] else {
        panic!("a frame must be event, data and id: {lines:?}");
    };
    Frame {
        event: event.to_owned(),
        data: data.to_owned(),
        id: id.parse().expect("an id of a frame is an event id"),
        retry,
    }
}
