//! Publishing over HTTP, without the agent.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::limits::MAX_EVENT_BYTES;
use runcast_tests::api::{problem, send};
use runcast_tests::database::{assert_each_once, text};
use runcast_tests::event_lines::{numbered_lines, output_line};
use runcast_tests::stack::Stack;
use serde_json::Value;
use uuid::Uuid;

/// Publishes lines as producer `story`; `first` is the seq of the first line.
async fn publish(stack: &Stack, run: Uuid, first: u64, lines: &[Vec<u8>]) -> Response {
    let path = format!("/v1/runs/{run}/events");
    let request = stack.api().request(Method::POST, &path);
    let request = request
        .header(CONTENT_TYPE, "application/x-ndjson")
        .header("producer-id", "story");
    send(
        request
            .header("producer-seq", first)
            .body(lines.join(&b'\n')),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_request_is_stored_once() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("over http").await.id;
    let lines = numbered_lines("line", 1..=5);
    for (first, lines) in [(1, &lines[..3]), (1, &lines[..3]), (4, &lines[3..])] {
        let response = publish(&stack, run, first, lines).await;
        assert_eq!(response.status(), StatusCode::OK);
        let accepted: Value = response.json().await.expect("JSON");
        assert_eq!(
            accepted["stored"],
            first + lines.len() as u64 - 1,
            "{accepted}"
        );
    }
    stack.database.wait_stored_events(run, 5).await;
    let events = stack.database.events(run).await;
    assert_each_once(&events);
    assert_eq!(
        text(&events, Kind::Output),
        b"line 1\nline 2\nline 3\nline 4\nline 5\n"
    );

    let response = publish(&stack, run, 9, &lines).await;
    let detail = problem(response, StatusCode::CONFLICT).await;
    assert!(
        detail.contains('6'),
        "it names the seq that must come first: {detail}"
    );
    let nowhere = publish(&stack, Uuid::now_v7(), 1, &lines).await;
    problem(nowhere, StatusCode::NOT_FOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_events_are_refused() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("refused").await.id;
    let mut oversized = output_line("text");
    oversized.pop();
    oversized.extend_from_slice(br#","more":""#);
    oversized.resize(MAX_EVENT_BYTES + 100, b'x');
    oversized.extend_from_slice(br#""}"#);

    let response = publish(&stack, run, 1, std::slice::from_ref(&oversized)).await;
    let status = response.status();
    assert!(status.is_client_error(), "{status}");
    let detail = problem(response, status).await;
    for number in [oversized.len(), MAX_EVENT_BYTES] {
        assert!(
            detail.contains(&number.to_string()),
            "size and limit: {detail}"
        );
    }
    for line in ["this is no JSON", "[]", r#"{"kind":"nonsense"}"#] {
        let response = publish(&stack, run, 1, &[line.as_bytes().to_vec()]).await;
        let detail = problem(response, StatusCode::BAD_REQUEST).await;
        assert!(!detail.is_empty(), "{line}");
    }

    // None of them has used a seq.
    let response = publish(&stack, run, 1, &[output_line("fine\n")]).await;
    assert_eq!(response.status(), StatusCode::OK);
    stack.database.wait_stored_events(run, 1).await;
    let events = stack.database.events(run).await;
    assert_eq!(text(&events, Kind::Output), b"fine\n");
    assert!(stack.database.dead_letters(run).await.is_empty());
}
