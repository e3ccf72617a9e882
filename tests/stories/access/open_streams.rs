//! Open streams end with the credential that opened them: at every gateway, whichever server code
//! carries them, and no others.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use runcast_tests::api::{Api, CreatedRun, send};
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::fixtures::{
    AT_ONCE, Browser, USER_PASSWORD, ask, new_token, revoke, second_gateway, sign_in, sign_in_with,
    user,
};
use crate::fanout::publisher;

/// Longest time until an expiry is noticed.
const EXPIRY_DEADLINE: Duration = Duration::from_secs(40);

/// An open response.
pub(super) struct Open {
    path: String,
    pub(super) rest: JoinHandle<String>,
}

impl Open {
    /// Sends the request, and waits until the response has begun.
    pub(super) async fn new(request: RequestBuilder, path: &str) -> Self {
        let mut response = send(request.header(ACCEPT, "text/event-stream, */*")).await;
        let status = response.status();
        assert_eq!(status, StatusCode::OK, "{path}");
        let first = within(WAIT_DEADLINE, path, response.chunk())
            .await
            .expect("read");
        let first = first.expect("a beginning");
        Self {
            path: path.to_owned(),
            rest: tokio::spawn(rest(response, first.to_vec())),
        }
    }

    /// It must end in time, with this reason.
    pub(super) async fn ends(self, deadline: Duration, why: &str) {
        let path = self.path;
        let output = within(deadline, &path, self.rest).await.expect("the rest");
        // A text is cut before its last line ends, which its client notices.
        let frame = match path.contains("/text") {
            true => "runcast: ",
            false => "event: closing",
        };
        assert!(
            output.contains(frame) && output.contains(why),
            "{path}: {output}"
        );
    }
}

/// All bytes until it ends or breaks.
async fn rest(mut response: Response, mut output: Vec<u8>) -> String {
    while let Ok(Some(chunk)) = response.chunk().await {
        output.extend_from_slice(&chunk);
    }
    String::from_utf8(output).expect("text")
}

/// Everything that can be open for a run.
fn paths(run: &CreatedRun) -> [String; 5] {
    let run = run.id;
    [
        format!("/v1/runs/{run}/stream"),
        format!("/v1/watch?run={run}"),
        "/v1/watch?label=team=search".to_owned(),
        "/v1/feed".to_owned(),
        format!("/v1/runs/{run}/text?follow"),
    ]
}

async fn open_all(run: &CreatedRun, ask: impl Fn(&str) -> RequestBuilder) -> Vec<Open> {
    let mut all = Vec::new();
    for path in paths(run) {
        all.push(Open::new(ask(&path), &path).await);
    }
    all
}

async fn open_streams_of(run: &CreatedRun, browser: &Browser) -> Vec<Open> {
    open_all(run, |path| browser.request(Method::GET, path)).await
}

async fn all_end(open: Vec<Open>, why: &str) {
    for one in open {
        one.ends(AT_ONCE, why).await;
    }
}

pub(super) async fn run_of_search(stack: &Stack) -> CreatedRun {
    let labels = json!({"labels": {"team": "search"}});
    let run = stack.api().create(&labels).await;
    let mut publisher = publisher(stack, &run).await;
    publisher.publish(&numbered_lines("line", 1..=3)).await;
    run
}

pub(super) async fn token(api: &Api, body: Value) -> (String, Api) {
    let (id, token) = new_token(api, body).await;
    (id, Api::new(api.base(), &token))
}

pub(super) const ENDED_REASON: &str = "has ended";
pub(super) const CHANGED_REASON: &str = "has changed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_token_closes_its_streams_at_all_gateways() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = run_of_search(&stack).await;
    let reader = json!({"name": "reader", "scopes": ["runs:read"]});
    let (id, here) = token(&api, reader.clone()).await;
    let (_, stays) = token(&api, reader).await;
    let session = sign_in_with(&api, &json!({"token": here.token()})).await;
    let there = Api::new(other.api.base(), here.token());
    let mut open = open_streams_of(&run, &session.at(&other.api)).await;
    for api in [&here, &there] {
        open.extend(open_all(&run, |path| api.request(Method::GET, path)).await);
    }
    let others = open_all(&run, |path| stays.request(Method::GET, path)).await;
    let path = format!("/v1/runs/{}/events?after=9999999999999-1&wait=50", run.id);
    let poll = tokio::spawn(send(there.request(Method::GET, &path)));
    revoke(&api, &id).await;
    all_end(open, ENDED_REASON).await;
    let polled = within(AT_ONCE, "a long poll", poll).await.expect("polled");
    assert_eq!(polled.status(), StatusCode::UNAUTHORIZED);
    assert!(others.iter().all(|one| !one.rest.is_finished()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_streams_close_on_sign_out_and_changes() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = run_of_search(&stack).await;
    user(&stack, "ada", &["viewer"]).await;
    let phone = sign_in(&api, "ada").await;
    let laptop = sign_in_with(
        &other.api,
        &json!({"user": "ada", "password": USER_PASSWORD, "client": "laptop"}),
    )
    .await;
    // Only streams of the session that she signs out of end.
    let (of_phone, of_laptop) = (
        open_streams_of(&run, &phone).await,
        open_streams_of(&run, &laptop).await,
    );
    let out = phone.at(&other.api);
    assert_eq!(out.status(Method::DELETE, "/v1/session").await, 204);
    all_end(of_phone, ENDED_REASON).await;
    assert!(of_laptop.iter().all(|one| !one.rest.is_finished()));
    // A changed role: she must reopen all streams, with her new rights.
    let role = "/v1/users/ada/roles/operator";
    ask(&api, Method::PUT, role, &Value::Null, 204).await;
    all_end(of_laptop, CHANGED_REASON).await;
    let again = open_streams_of(&run, &laptop).await;
    let mut by_http2 = over_http2(&stack, &other.api, &run, &laptop.cookie).await;
    ask(
        &api,
        Method::PATCH,
        "/v1/users/ada",
        &json!({"disabled": true}),
        200,
    )
    .await;
    all_end(again, ENDED_REASON).await;
    by_http2.wait_exit(AT_ONCE).await;
    let output = String::from_utf8(by_http2.stdout()).expect("text");
    assert!(
        output.contains("event: closing") && output.contains(ENDED_REASON),
        "{output}"
    );
}

/// A stream over HTTP/2, carried by the HTTP library.
async fn over_http2(stack: &Stack, api: &Api, run: &CreatedRun, cookie: &str) -> Process {
    let url = format!("{}/v1/runs/{}/stream", api.base(), run.id);
    let cookie = format!("cookie: {cookie}");
    let arguments = ["-sN", "--http2-prior-knowledge", "-H", &cookie, &url];
    let mut curl =
        ProcessSpec::new("curl", "curl", &arguments, stack.folder()).start(stack.folder());
    curl.wait_for_line("event: ready", WAIT_DEADLINE).await;
    curl
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnected_gateway_catches_up_on_revocations() {
    let stack = Stack::start().await;
    let api = stack.api();
    let chaos = ChaosProxy::start(stack.redis.port()).await;
    let redis = stack.redis.url(chaos.port());
    let deaf = second_gateway(&stack, &[("REDIS_URL", &redis)]).await;
    let run = run_of_search(&stack).await;
    let scopes = ["runs:read", "runs:publish"];
    let (id, reader) = token(&api, json!({"name": "reader", "scopes": scopes})).await;
    let of_run = token_of_run(&reader, &run).await;
    let path = format!("/v1/runs/{}/text?follow", run.id);
    let mut open = Vec::new();
    for token in [reader.token(), of_run.token()] {
        let there = Api::new(deaf.api.base(), token);
        open.push(Open::new(there.request(Method::GET, &path), &path).await);
    }
    chaos.refuse();
    revoke(&api, &id).await;
    chaos.forward();
    for one in open {
        one.ends(WAIT_DEADLINE, ENDED_REASON).await;
    }
}

/// A client with the token of a run that comes from this client's token.
async fn token_of_run(api: &Api, run: &CreatedRun) -> Api {
    let path = format!("/v1/runs/{}/publish", run.id);
    let joined = ask(api, Method::POST, &path, &Value::Null, 200).await;
    Api::new(api.base(), joined["token"].as_str().expect("a token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_token_closes_its_streams() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = run_of_search(&stack).await;
    let soon = stack
        .database
        .query_strings("SELECT to_char((now() + interval '3 s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
        .await;
    let scopes = ["runs:read", "runs:publish"];
    let body = json!({"name": "short", "scopes": scopes, "expires_at": soon[0]});
    let (_, short) = token(&api, body).await;
    let of_run = token_of_run(&short, &run).await;
    let mut open = open_all(&run, |path| short.request(Method::GET, path)).await;
    let path = format!("/v1/runs/{}/stream", run.id);
    open.push(Open::new(of_run.request(Method::GET, &path), &path).await);
    for one in open {
        one.ends(EXPIRY_DEADLINE, ENDED_REASON).await;
    }
}
