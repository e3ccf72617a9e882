//! Limits of open streams, and how an `EventSource` is refused so that it retries later.

use reqwest::header::ACCEPT;
use reqwest::{Method, Response, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::eventually::eventually;
use runcast_tests::process::ProcessSpec;
use runcast_tests::sse::{Frame, Sse};
use runcast_tests::stack::Stack;

use super::fixtures::{from, limited, metric, non_admin};

async fn open(api: &Api, path: &str, address: &str) -> Response {
    let request = api.request(Method::GET, path);
    send(from(request.header(ACCEPT, "text/event-stream"), address)).await
}

/// The only frame of a stream that is refused.
async fn closing_frame(response: Response) -> Frame {
    let mut stream = Sse::from_response(response).await;
    let closing = stream.next().await;
    assert_eq!(closing.event, "closing", "{closing:?}");
    let retry = closing.retry.expect("a retry pause");
    assert!(retry >= 10_000, "a long pause: {retry}");
    let deadline = tokio::time::Instant::now() + runcast_tests::eventually::WAIT_DEADLINE;
    assert_eq!(stream.next_before(deadline).await, Ok(None), "and no more");
    closing
}

async fn open_streams(stack: &Stack, expected: u64) {
    eventually(&format!("{expected} streams are open"), async || {
        let now = metric(stack, "runcast_limits_streams").await;
        if now == expected {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_limited_by_principal_and_address_and_released() {
    let stack = limited("streams=2,streams-by-address=3").await;
    let run = stack.api().create_run("crowded").await.id;
    let (one, other) = (
        non_admin(&stack, "runs:read").await,
        non_admin(&stack, "runs:read").await,
    );
    let path = format!("/v1/runs/{run}/stream");
    let mut first = Sse::from_response(open(&one, &path, "192.0.2.1").await).await;
    first.read_until("ready").await;
    let text = format!("/v1/runs/{run}/text?follow");
    let followed = open(&one, &text, "192.0.2.1").await;
    assert_eq!(followed.status(), StatusCode::OK);
    problem(
        open(&one, &text, "192.0.2.2").await,
        StatusCode::TOO_MANY_REQUESTS,
    )
    .await;
    drop(followed);
    open_streams(&stack, 1).await;
    let feed = Sse::from_response(open(&one, "/v1/feed", "192.0.2.1").await).await;
    // From another address as well.
    let closing = closing_frame(open(&one, &path, "192.0.2.2").await).await;
    let reason = closing.json()["reason"].to_string();
    assert!(reason.contains("user or token"), "{reason}");
    let watch = format!("/v1/watch?run={run}");
    let watched = Sse::from_response(open(&other, &watch, "192.0.2.1").await).await;
    let closing = closing_frame(open(&other, &path, "192.0.2.1").await).await;
    let reason = closing.json()["reason"].to_string();
    assert!(reason.contains("address"), "{reason}");
    open_streams(&stack, 3).await;
    for refused in ["principal", "address"] {
        let name = format!("runcast_limits_streams_refused_total{{reason=\"{refused}\"}}");
        let expected = if refused == "principal" { 2 } else { 1 };
        assert_eq!(metric(&stack, &name).await, expected, "{refused}");
    }
    // An admin has no limit. A client other than EventSource gets a plain error.
    let admin = stack.api();
    let admins = Sse::from_response(open(&admin, &path, "192.0.2.1").await).await;
    let plain = from(one.request(Method::GET, &path), "192.0.2.2");
    problem(send(plain).await, StatusCode::TOO_MANY_REQUESTS).await;

    drop((first, feed, watched, admins));
    open_streams(&stack, 0).await;
    // Refused or failed requests hold no permit.
    for _ in 0..5 {
        let nowhere = format!("/v1/runs/{}/stream", uuid::Uuid::now_v7());
        problem(
            open(&one, &nowhere, "192.0.2.1").await,
            StatusCode::NOT_FOUND,
        )
        .await;
    }
    let mut again = Sse::from_response(open(&one, &path, "192.0.2.1").await).await;
    again.read_until("ready").await;
    open_streams(&stack, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_streams_are_counted_and_released() {
    let stack = limited("streams=1").await;
    let run = stack.api().create_run("multiplexed").await.id;
    let token = stack.create_token("runs:read").await;
    let reader = Api::new(stack.api().base(), &token);
    let path = format!("/v1/runs/{run}/stream");
    let url = format!("{}{path}", reader.base());
    let bearer = format!("authorization: Bearer {token}");
    let arguments = ["-sN", "--http2-prior-knowledge", "-H", &bearer, &url];
    let mut curl =
        ProcessSpec::new("curl", "curl", &arguments, stack.folder()).start(stack.folder());
    open_streams(&stack, 1).await;
    closing_frame(open(&reader, &path, "192.0.2.1").await).await;
    curl.kill();
    open_streams(&stack, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limited_stream_is_asked_to_retry() {
    let stack = limited("read=1/h").await;
    let run = stack.api().create_run("impatient").await.id;
    let reader = non_admin(&stack, "runs:read").await;
    let path = format!("/v1/runs/{run}/stream");
    let mut stream = Sse::from_response(open(&reader, &path, "192.0.2.1").await).await;
    stream.read_until("ready").await;
    // It keeps its cursor, whatever that is.
    let again = reader
        .request(Method::GET, &path)
        .header(ACCEPT, "text/event-stream");
    let again = again.header("last-event-id", "1700000000000-7");
    let closing = closing_frame(send(again).await).await;
    assert_eq!(closing.id.to_string(), "1700000000000-7");
    assert!(
        closing.retry.is_some_and(|retry| retry > 3_000_000),
        "{closing:?}"
    );
    let forged = format!("{path}?after=1%0Adata:%20forged");
    let closing = closing_frame(open(&reader, &forged, "192.0.2.1").await).await;
    assert_eq!(closing.id.to_string(), "0-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_limit_includes_viewers() {
    let stack = limited("connections=3").await;
    let run = stack.api().create_run("few").await.id;
    let path = format!("/v1/runs/{run}/stream");
    let viewers = (
        Sse::from_response(open(&stack.api(), &path, "192.0.2.1").await).await,
        Sse::from_response(open(&stack.api(), &path, "192.0.2.1").await).await,
    );
    // The third is kept alive by the client that sends the next request.
    let third = stack.api();
    third.run(run).await;
    let refused = stack.api().request(Method::GET, "/healthz").send().await;
    assert!(refused.is_err(), "closed at once: {refused:?}");
    assert!(metric(&stack, "runcast_connections_refused_total").await >= 1);
    assert_eq!(metric(&stack, "runcast_connections_open").await, 3);
    drop((viewers, third));
    eventually("permits are free again", async || {
        let answer = stack.api().request(Method::GET, "/healthz").send().await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
