//! Where a stream starts: resume in the middle of an entry, all forms of a cursor, and the end.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event_id::EventId;
use runcast_tests::api::{problem, send};
use runcast_tests::database::assert_each_once;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::{Frame, Sse};
use runcast_tests::stack::{Service, Stack};
use tokio::time::Instant;
use uuid::Uuid;

/// A run with these lines in one entry.
async fn run_with(stack: &Stack, lines: &[Vec<u8>]) -> (Uuid, Publisher, EventId) {
    let run = stack.api().create_run("cursors").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let last = publisher.publish(lines).await;
    (run.id, publisher, last)
}

/// Checks that the frames are exactly these lines with their envelopes, from seq `first` on.
fn assert_frames(frames: &[Frame], lines: &[Vec<u8>], producer: Uuid, epoch: u64, first: u64) {
    assert_eq!(frames.len(), lines.len(), "{frames:?}");
    for ((frame, line), seq) in frames.iter().zip(lines).zip(first..) {
        let open = String::from_utf8(line[..line.len() - 1].to_vec()).expect("UTF-8");
        let envelope = format!(r#","id":"{epoch}-{seq}","producer":"{producer}","seq":{seq}}}"#);
        assert_eq!(frame.data, open + &envelope);
        assert_eq!(
            (frame.event.as_str(), frame.id),
            ("output", EventId::new(epoch, seq))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_resumes_in_the_middle_of_an_entry() {
    let mut stack = Stack::start().await;
    let all = numbered_lines("line", 1..=10);
    let (run, mut publisher, last) = run_with(&stack, &all).await;
    let middle = EventId::new(last.epoch, 4).to_string();

    // From Redis or the ring, from Postgres once stored, and from a gateway that has just started.
    for round in ["fresh", "stored", "new gateway"] {
        match round {
            "stored" => stack.database.wait_stored(run, last).await,
            "new gateway" => {
                stack.stop(Service::Gateway).await;
                stack.start_service(Service::Gateway).await;
            }
            _ => {}
        }
        let mut stream = stack.api().watch(run, Some(&middle)).await;
        let mut frames = stream.read_until("ready").await;
        let ready = frames.pop().expect("the ready frame");
        assert_frames(&frames, &all[4..], publisher.producer, last.epoch, 5);
        assert_eq!(ready.id, last, "{round}: ready has the viewer's cursor");
    }

    // Later events follow without a gap.
    let mut stream = stack.api().watch(run, Some(&middle)).await;
    stream.read_until("ready").await;
    let more = numbered_lines("later", 1..=3);
    publisher.publish(&more).await;
    let mut frames = Vec::new();
    for _ in 0..more.len() {
        frames.push(stream.next().await);
    }
    assert_frames(&frames, &more, publisher.producer, last.epoch, 11);
    stack
        .database
        .wait_stored(run, EventId::new(last.epoch, 13))
        .await;
    assert_each_once(&stack.database.events(run).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_cursor_forms_are_parsed_or_refused() {
    let stack = Stack::start().await;
    let all = numbered_lines("line", 1..=5);
    let (run, publisher, last) = run_with(&stack, &all).await;
    let api = stack.api();

    for malformed in [
        "x",
        "1",
        "1-",
        "-1",
        "1_2",
        "1-2-3",
        "1-2x",
        "99999999999999999999-1",
    ] {
        let response = api.stream(run, Some(malformed), "").await;
        let detail = problem(response, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains("event id"), "{malformed}: {detail}");
        let response = api.stream(run, None, &format!("?after={malformed}")).await;
        problem(response, StatusCode::BAD_REQUEST).await;
    }

    let epoch = last.epoch;
    let plain = format!("{epoch}-3");
    let padded = format!("{epoch:016}_{:016}", 3);
    let after = format!("?after={plain}");
    let before_it = format!("?after={epoch}-1");
    let cases: [(Option<&str>, &str, usize); 7] = [
        (None, "", 0),
        (Some(""), "", 0),
        (Some("0-0"), "", 0),
        (Some(&plain), "", 3),
        (Some(&padded), "", 3),
        (None, &after, 3),
        // The header wins, since it is newer: EventSource repeats its first query on each
        // reconnect.
        (Some(&plain), &before_it, 3),
    ];
    for (header, query, seen) in cases {
        let mut stream = Sse::from_response(api.stream(run, header, query).await).await;
        let mut frames = stream.read_until("ready").await;
        frames.pop();
        let first = seen as u64 + 1;
        assert_frames(&frames, &all[seen..], publisher.producer, epoch, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_filter_events() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("channels").await.id;
    let mut wrap = stack.wrap(run, &["sh", "-c", "echo out; echo err >&2"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    stack.database.wait_sealed(run).await;
    for (query, kinds) in [
        ("?channel=output:0", &["output"][..]),
        ("?channel=output:1", &[]),
        ("?channel=log", &["log"]),
        (
            "?channel=status&channel=output",
            &["status", "output", "status"],
        ),
    ] {
        let mut stream = Sse::from_response(stack.api().stream(run, None, query).await).await;
        let frames = stream.read_until("end").await;
        let events = frames.iter().filter(|frame| !frame.is_connection_notice());
        let displayed: Vec<_> = events.map(|frame| frame.event.as_str()).collect();
        assert_eq!(displayed, kinds, "{query}");
    }
    let response = stack.api().stream(run, None, "?channel=nonsense").await;
    problem(response, StatusCode::BAD_REQUEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_run_ends_streams_then_returns_204() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("short").await.id;
    let mut early = stack.api().watch(run, None).await;
    let mut wrap = stack.wrap(run, &["echo", "all there is"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());

    let frames = early.read_until("end").await;
    let end = frames.last().expect("the end frame");
    assert_eq!(end.json()["status"], "succeeded");
    let events = stack.database.wait_sealed(run).await;
    assert_eq!(
        end.id,
        events.last().expect("events").id,
        "the end follows the last event"
    );

    // EventSource reconnects on its own; only 204 stops it.
    let path = format!("/v1/runs/{run}/stream");
    let again = stack.api().request(Method::GET, &path);
    let response = send(again.header("last-event-id", end.id.to_string())).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);

    // A late viewer receives everything, and the end.
    let mut late = stack.api().watch(run, None).await;
    let frames = late.read_until("end").await;
    let displayed = frames.iter().filter(|frame| !frame.is_connection_notice());
    assert_eq!(displayed.count(), events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_stream_gets_keep_alives_and_closing_notice() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("silent").await.id;
    let mut stream = stack.api().watch(run, None).await;
    assert_eq!(stream.next().await.event, "ready");
    let retained = stream.expect_keep_alive(Duration::from_secs(20)).await;
    assert!(
        retained.is_ok(),
        "a line every 15 s, so that no proxy closes the connection"
    );

    let api = stack.api();
    let closing = tokio::spawn(async move {
        let frames = stream.read_until("closing").await;
        let what_follows = stream.next_before(Instant::now() + WAIT_DEADLINE).await;
        (frames.len(), what_follows)
    });
    stack.stop(Service::Gateway).await;
    let (frames, what_follows) = closing.await.expect("the viewer's task");
    assert_eq!(
        (frames, what_follows),
        (1, Ok(None)),
        "closing, then the end of the stream"
    );
    stack.start_service(Service::Gateway).await;
    assert_eq!(api.watch(run, None).await.next().await.event, "ready");
}
