//! Rejected requests: the right status, and a helpful message.

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event::{InvalidEvent, Kind, Text, write_line};
use runcast_common::protocol::limits::MAX_EVENT_BYTES;
use runcast_tests::api::{problem, send};
use runcast_tests::stack::Stack;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_run_is_not_found() {
    let stack = Stack::start().await;
    let api = stack.api();
    let unknown = Uuid::now_v7();
    for path in ["", "/stream", "/events"] {
        let path = format!("/v1/runs/{unknown}{path}");
        let response = send(api.request(Method::GET, &path)).await;
        let detail = problem(response, StatusCode::NOT_FOUND).await;
        assert!(detail.contains(&unknown.to_string()), "{path}: {detail}");
    }
    let response = send(api.request(Method::GET, "/v1/nothing-like-this")).await;
    problem(response, StatusCode::NOT_FOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_method_is_refused_with_allowed_ones() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("methods").await.id;
    let cases = [
        (Method::DELETE, "/v1/runs".to_owned()),
        (Method::PUT, format!("/v1/runs/{run}")),
        (Method::POST, format!("/v1/runs/{run}/stream")),
        (Method::DELETE, format!("/v1/runs/{run}/events")),
    ];
    for (method, path) in cases {
        let response = send(api.request(method.clone(), &path)).await;
        let allow = response.headers().get("allow").cloned();
        let allow = allow.unwrap_or_else(|| panic!("{method} {path}: no Allow header"));
        assert!(
            allow.to_str().is_ok_and(|names| names.contains("GET")),
            "{allow:?}"
        );
        problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_need_a_token_of_the_right_scope() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("closed").await;
    let paths = ["/v1/runs".to_owned(), format!("/v1/runs/{}/stream", run.id)];
    for path in &paths {
        let response = send(api.anonymous(Method::GET, path)).await;
        problem(response, StatusCode::UNAUTHORIZED).await;
        let wrong = api.anonymous(Method::GET, path).bearer_auth("not-a-token");
        problem(send(wrong).await, StatusCode::UNAUTHORIZED).await;
    }
    // An agent's token permits publishing; it neither reads other runs nor creates any.
    let other = api.create_run("other").await.id;
    let read = api
        .anonymous(Method::GET, &format!("/v1/runs/{other}"))
        .bearer_auth(&run.token);
    problem(send(read).await, StatusCode::FORBIDDEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_body_is_refused_with_the_reason() {
    let stack = Stack::start().await;
    let api = stack.api();
    for body in [
        "",
        "{",
        "[]",
        r#"{"name":"x","variations":0}"#,
        r#"{"name":"x","variations":257}"#,
    ] {
        let request = api.request(Method::POST, "/v1/runs");
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let response = send(request).await;
        let status = response.status();
        assert!(
            status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY,
            "{body:?} is answered with {status}"
        );
        let detail = problem(response, status).await;
        assert!(!detail.is_empty(), "{body:?}");
    }
}

#[test]
fn oversized_event_is_refused_with_size_and_limit() {
    let text = "x".repeat(MAX_EVENT_BYTES);
    let payload = Text {
        text: Some(&text),
        ..Text::default()
    };
    let mut line = Vec::new();
    let error = write_line(&mut line, Kind::Output, 0, 0, &payload).expect_err("too large");
    let InvalidEvent::TooLarge { size } = error else {
        panic!("unexpected reason: {error}");
    };
    assert!(size > MAX_EVENT_BYTES);
    let message = error.to_string();
    for number in [size, MAX_EVENT_BYTES] {
        assert!(message.contains(&number.to_string()), "{message}");
    }
}
