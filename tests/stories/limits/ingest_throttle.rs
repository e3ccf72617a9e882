//! Publishing too fast over HTTP: requests are slowed down, then refused, and no event is lost.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{Api, CreatedRun, send};
use runcast_tests::database::{assert_each_once, text};
use runcast_tests::event_lines::output_line;
use runcast_tests::stack::Stack;
use serde_json::Value;

use super::fixtures::{header, limited, metric};

/// Lines of this many bytes in total, and their text.
fn lines(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut output) = (Vec::new(), Vec::new());
    for number in 0.. {
        if body.len() >= bytes {
            break;
        }
        let text = format!("line {number} {}\n", "x".repeat(1000));
        body.extend_from_slice(&output_line(&text));
        body.push(b'\n');
        output.extend_from_slice(text.as_bytes());
    }
    (body, output)
}

async fn publish(stack: &Stack, run: &CreatedRun, body: Vec<u8>) -> Response {
    let agent = Api::new(stack.api().base(), &run.token);
    let path = format!("/v1/runs/{}/events", run.id);
    let request = agent
        .request(Method::POST, &path)
        .header("producer-id", "story");
    send(request.header("producer-seq", 1).body(body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_publisher_is_throttled() {
    let stack = limited("publish=512KiB/s:1MiB").await;
    let run = stack.api().create_run("fast").await;
    let (body, output) = lines(2 << 20);
    let began = Instant::now();
    let answer = publish(&stack, &run, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1500),
        "2 MiB, half of them at 512 KiB/s: {took:?}"
    );
    let accepted: Value = answer.json().await.expect("JSON");
    let count = accepted["stored"].as_u64().expect("a seq");
    stack.database.wait_stored_events(run.id, count).await;
    let events = stack.database.events(run.id).await;
    assert_each_once(&events);
    assert_eq!(text(&events, Kind::Output), output);
    let waited = r#"runcast_limits_limited_total{policy="publish",source="redis"}"#;
    assert!(metric(&stack, waited).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn excessive_publisher_is_refused_and_resends() {
    let mut stack = limited("publish=1KiB/s:1MiB").await;
    let run = stack.api().create_run("far too fast").await;
    let other = stack.api().create_run("other").await;
    let (body, output) = lines(3 << 19);
    let answer = publish(&stack, &run, body.clone()).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = header(&answer, "retry-after").parse().expect("seconds");
    assert!(wait > 10, "{wait}");
    let problem: Value = answer.json().await.expect("a problem document");
    assert!(
        problem["stored"]
            .as_u64()
            .is_some_and(|stored| stored > 100),
        "{problem}"
    );
    // Another run has a limit of its own.
    let (little, _) = lines(100_000);
    assert_eq!(
        publish(&stack, &other, little).await.status(),
        StatusCode::OK
    );
    // Later, the same request again: its first part is recognised as stored.
    stack.stop(runcast_tests::stack::Service::Gateway).await;
    super::fixtures::set(&mut stack, "publish=off");
    stack
        .start_service(runcast_tests::stack::Service::Gateway)
        .await;
    let answer = publish(&stack, &run, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let accepted: Value = answer.json().await.expect("JSON");
    let count = accepted["stored"].as_u64().expect("a seq");
    stack.database.wait_stored_events(run.id, count).await;
    let events = stack.database.events(run.id).await;
    assert_each_once(&events);
    assert_eq!(text(&events, Kind::Output), output);
}
