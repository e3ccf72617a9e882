//! How stories watch a run as the page does: it resumes by cursor after reconnects, and ignores
//! duplicates.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event_id::EventId;
use runcast_tests::api::Api;
use runcast_tests::event_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::sse::{Frame, Sse};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Pause of a viewer whose gateway is unreachable.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A reader of one run that reconnects whenever its stream breaks.
pub(crate) struct Viewer {
    api: Api,
    run: Uuid,
    cursor: Option<EventId>,
    highest: HashMap<String, u64>,
    /// Events, each once.
    pub(crate) events: Vec<Value>,
    /// Duplicates, by producer and seq.
    pub(crate) repeated: usize,
    /// Reasons of the received gaps.
    pub(crate) gaps: Vec<String>,
    /// How often it connected.
    pub(crate) connections: usize,
}

impl Viewer {
    pub(crate) fn new(api: Api, run: Uuid) -> Self {
        Self {
            api,
            run,
            cursor: None,
            highest: HashMap::new(),
            events: Vec::new(),
            repeated: 0,
            gaps: Vec::new(),
            connections: 0,
        }
    }

    /// Watches until the run has ended.
    pub(crate) async fn until_the_end(self) -> Self {
        within(
            WAIT_DEADLINE * 3,
            "a viewer receives the end of its run",
            self.follow(|_| false),
        )
        .await
    }

    /// Watches until an event satisfies `enough`, or the run has ended.
    pub(crate) async fn until(self, enough: impl FnMut(&Value) -> bool) -> Self {
        within(
            WAIT_DEADLINE * 2,
            "a viewer receives the expected event",
            self.follow(enough),
        )
        .await
    }

    async fn follow(mut self, mut enough: impl FnMut(&Value) -> bool) -> Self {
        loop {
            // It has received everything; only the `end` frame was lost with a gateway.
            let Some(mut stream) = self.connect().await else {
                return self;
            };
            while let Ok(Some(frame)) = stream.next_before(Instant::now() + WAIT_DEADLINE).await {
                if self.take(&frame) && self.events.last().is_some_and(&mut enough) {
                    return self;
                }
                if frame.event == "end" {
                    return self;
                }
            }
        }
    }

    /// Connects as EventSource does: again and again, with its last event id. None on 204, after
    /// which EventSource stays away.
    async fn connect(&mut self) -> Option<Sse> {
        self.connections += 1;
        let cursor = self.cursor.map(|id| id.to_string());
        let path = format!("/v1/runs/{}/stream", self.run);
        let give_up = Instant::now() + WAIT_DEADLINE;
        let response = loop {
            let mut request = self.api.request(Method::GET, &path);
            if let Some(cursor) = &cursor {
                request = request.header("last-event-id", cursor);
            }
            match request.send().await {
                Ok(response) => break response,
                Err(error) if Instant::now() > give_up => panic!("no gateway: {error}"),
                Err(_not_there) => sleep(RETRY_PAUSE).await,
            }
        };
        if response.status() == StatusCode::NO_CONTENT && self.cursor.is_some() {
            return None;
        }
        Some(Sse::from_response(response).await)
    }

    /// Processes one frame; true if it is a new event.
    fn take(&mut self, frame: &Frame) -> bool {
        assert!(
            self.cursor.is_none_or(|cursor| cursor <= frame.id),
            "ids go back from {:?}: {frame:?}",
            self.cursor
        );
        self.cursor = Some(frame.id);
        let event = frame.json();
        if frame.event == "gap" && frame.is_connection_notice() {
            self.gaps
                .push(event["reason"].as_str().unwrap_or_default().to_owned());
        }
        if frame.is_connection_notice() {
            return false;
        }
        assert_eq!(event["id"], frame.id.to_string(), "the id in the envelope");
        let producer = event["producer"].as_str().expect("a producer").to_owned();
        let seq = event["seq"].as_u64().expect("a seq");
        let highest = self.highest.entry(producer).or_insert(0);
        if seq <= *highest {
            self.repeated += 1;
            return false;
        }
        assert_eq!(
            seq,
            *highest + 1,
            "a viewer missed something before {event}"
        );
        *highest = seq;
        self.events.push(event);
        true
    }

    /// The concatenated text of all events of a kind.
    pub(crate) fn text(&self, kind: &str) -> Vec<u8> {
        let of_kind = self.events.iter().filter(|event| event["kind"] == kind);
        of_kind.flat_map(event_lines::text_bytes).collect()
    }
}

/// Lines `<word> <number>`, to compare with the received text.
pub(crate) fn numbers(word: &str, range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|number| format!("{word} {number}\n")).collect()
}

/// Compares received with published text, and prints where they differ rather than both texts.
pub(crate) fn assert_text(arrived: &[u8], output: &str) {
    if arrived == output.as_bytes() {
        return;
    }
    let arrived = String::from_utf8_lossy(arrived);
    let mut pairs = output.lines().zip(arrived.lines()).enumerate();
    let first = pairs.find(|(_, (expected, actual))| expected != actual);
    panic!(
        "{} lines were published and {} received; the first difference: {first:?}",
        output.lines().count(),
        arrived.lines().count()
    );
}
