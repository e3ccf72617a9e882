//! Stream tickets: valid once, only for reading, and no longer than their credential.

use futures::future::join_all;
use redis::AsyncCommands as _;
use reqwest::header::{ACCEPT, ORIGIN};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use runcast_tests::api::{Api, CreatedRun, problem, send};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::fixtures::{AT_ONCE, ask, new_token, revoke, second_gateway, sign_in, user};
use super::open_streams::{CHANGED_REASON, ENDED_REASON, Open, run_of_search, token};

/// The path that creates tickets.
pub(crate) const TICKETS_PATH: &str = "/v1/stream-tickets";

/// A ticket of this client, with these bounds.
pub(crate) async fn ticket(api: &Api, bounds: &Value) -> String {
    of(&ask(api, Method::POST, TICKETS_PATH, bounds, 201).await)
}

fn of(created: &Value) -> String {
    assert_eq!(created["expires_in"], 30, "{created}");
    created["ticket"].as_str().expect("a ticket").to_owned()
}

/// This path with a ticket.
pub(crate) fn with_ticket(path: &str, ticket: &str) -> String {
    let stamp = if path.contains('?') { '&' } else { '?' };
    format!("{path}{stamp}ticket={ticket}")
}

/// A request as an `EventSource` of another origin sends it.
pub(crate) fn by_ticket(api: &Api, path: &str, ticket: &str) -> RequestBuilder {
    let request = api.anonymous(Method::GET, &with_ticket(path, ticket));
    request.header(ACCEPT, "text/event-stream")
}

async fn status(api: &Api, path: &str, ticket: &str) -> u16 {
    send(by_ticket(api, path, ticket)).await.status().as_u16()
}

async fn open(api: &Api, path: &str, ticket: &str) -> Open {
    Open::new(by_ticket(api, path, ticket), path).await
}

async fn reader(api: &Api) -> Api {
    token(api, json!({"name": "reader", "scopes": ["runs:read"]}))
        .await
        .1
}

/// The streams that a ticket opens.
fn streams(run: &CreatedRun) -> [String; 3] {
    let run = run.id;
    [
        format!("/v1/runs/{run}/stream"),
        format!("/v1/watch?run={run}"),
        "/v1/feed".to_owned(),
    ]
}

fn stream_of(run: &CreatedRun) -> String {
    format!("/v1/runs/{}/stream", run.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_opens_one_stream() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = run_of_search(&stack).await;
    let reader = reader(&api).await;
    for path in streams(&run) {
        let one = ticket(&reader, &json!({})).await;
        let open = open(&other.api, &path, &one).await;
        for api in [&api, &other.api] {
            assert_eq!(status(api, &path, &one).await, 401, "{path}");
        }
        assert!(!open.rest.is_finished(), "{path}");
    }
    // At both gateways at the same moment.
    let path = stream_of(&run);
    for _ in 0..10 {
        let one = ticket(&reader, &json!({})).await;
        let gateways = [&api, &other.api].into_iter().cycle().take(8);
        let requested = gateways.map(|api| status(api, &path, &one));
        let mut responses = join_all(requested).await;
        responses.sort_unstable();
        assert_eq!(responses, [&[200][..], &[401; 7]].concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_expires_after_half_a_minute() {
    let stack = Stack::start().await;
    let run = run_of_search(&stack).await;
    let reader = reader(&stack.api()).await;
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}*ticket*", stack.keys().prefix());
    let one = ticket(&reader, &json!({"runs": [run.id]})).await;
    let key = stack.keys().ticket(&Sha256::digest(&one).into());
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    assert_eq!(
        keys,
        [key.as_str()],
        "known by its hash, and by nothing else"
    );
    let contained: String = redis.get(&key).await.expect("its credential");
    for secret in [one.as_str(), reader.token()] {
        assert!(!contained.contains(secret), "{contained}");
    }
    let left: i64 = redis.pttl(&key).await.expect("a life");
    assert!((1..=30_000).contains(&left), "{left} ms");
    let _: bool = redis.pexpire(&key, 1).await.expect("a shorter lifetime");
    eventually("it has expired", async || {
        let there: bool = redis.exists(&key).await.expect("a response");
        (!there).then_some(()).ok_or("the ticket exists".to_owned())
    })
    .await;
    assert_eq!(status(&reader, &stream_of(&run), &one).await, 401);
    // A used ticket leaves no key.
    let one = ticket(&reader, &json!({})).await;
    assert_eq!(status(&reader, &stream_of(&run), &one).await, 200);
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    assert_eq!(keys, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_is_limited_to_its_bounds() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let search = api.create(&json!({"labels": {"team": "search"}})).await;
    let ads = api.create(&json!({"labels": {"team": "ads"}})).await;
    let (reader, runs) = (reader(&api).await, json!({"runs": [search.id]}));
    let both = format!("/v1/watch?run={}&run={}", search.id, ads.id);
    for (path, expected) in [
        (stream_of(&search), 200),
        (stream_of(&ads), 403),
        (format!("/v1/watch?run={}", search.id), 200),
        (format!("/v1/watch?run={}", ads.id), 403),
        (both.clone(), 403),
    ] {
        let one = ticket(&reader, &runs).await;
        assert_eq!(status(&api, &path, &one).await, expected, "{path}");
        // Whatever the result was, it is used up.
        assert_eq!(status(&api, &stream_of(&search), &one).await, 401);
    }
    let one = ticket(&reader, &json!({"runs": [search.id, ads.id]})).await;
    assert_eq!(status(&api, &both, &one).await, 200);
    // The feed contains only that run, although the other one came earlier.
    let one = ticket(&reader, &runs).await;
    let feed = send(by_ticket(&api, "/v1/feed", &one)).await;
    for run in [ads.id, search.id] {
        let mut wrap = stack.wrap(run, &["echo", "hello"]);
        assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
        stack.database.wait_sealed(run).await;
    }
    let received = until(feed, &search.id.to_string()).await;
    assert!(!received.contains(&ads.id.to_string()), "{received}");
    // Invalid bounds are refused at creation.
    let bound = json!({"name": "one", "scopes": ["runs:read"], "run": search.id});
    let (_, bound) = token(&api, bound).await;
    let publisher = json!({"name": "publisher", "scopes": ["runs:publish"]});
    let (_, publisher) = token(&api, publisher).await;
    for (api, body, expected) in [
        (&bound, json!({"runs": [ads.id]}), 403),
        (&reader, json!({"runs": [Uuid::now_v7()]}), 404),
        (&reader, json!({"runs": []}), 400),
        (&reader, json!({"runs": vec![search.id; 65]}), 400),
        (&reader, json!({"scopes": ["admin"]}), 400),
        (&publisher, json!({}), 403),
    ] {
        ask(api, Method::POST, TICKETS_PATH, &body, expected).await;
    }
    // It permits no more than the token.
    let one = ticket(&bound, &json!({})).await;
    assert_eq!(status(&api, &stream_of(&ads), &one).await, 403);
}

/// The text of a stream up to and including `target`.
async fn until(mut response: Response, target: &str) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let mut received = String::new();
    while !received.contains(target) {
        let chunk = within(WAIT_DEADLINE, "more of the stream", response.chunk()).await;
        let chunk = chunk.expect("a stream").expect("more of the stream");
        received += std::str::from_utf8(&chunk).expect("text");
    }
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_opens_only_streams() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = run_of_search(&stack).await;
    let one = ticket(&api, &json!({})).await;
    let path = format!("/v1/runs/{}", run.id);
    let text = format!("{path}/text?follow");
    let control = format!("{path}/control");
    for (method, path) in [
        (Method::POST, TICKETS_PATH),
        (Method::POST, "/v1/tokens"),
        (Method::POST, "/v1/runs"),
        (Method::POST, &control),
        (Method::GET, "/v1/session"),
        (Method::GET, &text),
        (Method::GET, &path),
    ] {
        let request = api.anonymous(method.clone(), &with_ticket(path, &one));
        let request = request.json(&json!({"name": "x", "scopes": ["runs:read"]}));
        let status = send(request).await.status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    let sign_in = json!({"token": one});
    ask(&api, Method::POST, "/v1/session", &sign_in, 401).await;
    let bearer = api.anonymous(Method::GET, "/v1/feed").bearer_auth(&one);
    assert_eq!(send(bearer).await.status(), StatusCode::UNAUTHORIZED);
    // The ticket was not checked, so it is not used up. A ticket takes precedence over other
    // credentials.
    let feed = api.request(Method::GET, &with_ticket("/v1/feed", &one));
    assert_eq!(send(feed).await.status(), StatusCode::OK);
    let feed = api.request(Method::GET, &with_ticket("/v1/feed", &one));
    assert_eq!(send(feed).await.status(), StatusCode::UNAUTHORIZED);
    let tokens = "SELECT count(*) FROM tokens WHERE name = 'x'";
    assert_eq!(stack.database.query_number(tokens).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_and_its_stream_end_with_the_token() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = run_of_search(&stack).await;
    let (id, secret) = new_token(&api, json!({"name": "reader", "scopes": ["runs:read"]})).await;
    let reader = Api::new(api.base(), &secret);
    let (all, one_run) = (json!({}), json!({"runs": [run.id]}));
    let unused = ticket(&reader, &all).await;
    let mut all_open = Vec::new();
    for path in streams(&run) {
        // By the same token with other bounds: none ends another.
        for bounds in [&all, &one_run, &all] {
            let one = ticket(&reader, bounds).await;
            all_open.push(open(&other.api, &path, &one).await);
        }
        let there = Api::new(other.api.base(), &secret);
        all_open.push(Open::new(there.request(Method::GET, &path), &path).await);
    }
    revoke(&api, &id).await;
    for open in all_open {
        open.ends(AT_ONCE, ENDED_REASON).await;
    }
    for api in [&api, &other.api] {
        assert_eq!(status(api, &stream_of(&run), &unused).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_and_its_stream_end_with_session_and_user() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = run_of_search(&stack).await;
    let path = stream_of(&run);
    user(&stack, "ada", &["viewer"]).await;
    let phone = sign_in(&api, "ada").await;
    let laptop = sign_in(&other.api, "ada").await;
    let of_phone = async || {
        of(&phone
            .send(Method::POST, TICKETS_PATH, &json!({}), 201)
            .await)
    };
    let of_laptop = async || {
        of(&laptop
            .send(Method::POST, TICKETS_PATH, &json!({}), 201)
            .await)
    };
    // A session is accepted only from the page itself; no other site can create a ticket with it.
    let cross_site = phone.request(Method::POST, TICKETS_PATH).json(&json!({}));
    let cross_site = cross_site.header("origin", "https://elsewhere.example");
    let forged = api.anonymous(Method::POST, TICKETS_PATH).json(&json!({}));
    let forged = forged
        .header("cookie", &phone.cookie)
        .header("sec-fetch-site", "cross-site");
    assert_eq!(send(cross_site).await.status(), StatusCode::CREATED);
    assert_eq!(send(forged).await.status(), StatusCode::FORBIDDEN);

    let unused = of_phone().await;
    let by_phone = open(&other.api, &path, &of_phone().await).await;
    let by_laptop = open(&api, &path, &of_laptop().await).await;
    let out = phone.at(&other.api);
    assert_eq!(out.status(Method::DELETE, "/v1/session").await, 204);
    by_phone.ends(AT_ONCE, ENDED_REASON).await;
    assert_eq!(status(&api, &path, &unused).await, 401);
    assert!(!by_laptop.rest.is_finished());
    // More rights give a ticket no more to read, so its stream continues. The session's stream must
    // be reopened.
    let by_cookie = Open::new(laptop.request(Method::GET, &path), &path).await;
    let role = "/v1/users/ada/roles/operator";
    ask(&api, Method::PUT, role, &Value::Null, 204).await;
    by_cookie.ends(AT_ONCE, CHANGED_REASON).await;
    assert!(!by_laptop.rest.is_finished());
    let unused = of_laptop().await;
    let disabled = json!({"disabled": true});
    ask(&api, Method::PATCH, "/v1/users/ada", &disabled, 200).await;
    by_laptop.ends(AT_ONCE, ENDED_REASON).await;
    assert_eq!(status(&api, &path, &unused).await, 401);
}

/// One use among all gateways needs a store that all of them share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_tickets_are_unavailable() {
    let mut stack = Stack::start().await;
    let run = run_of_search(&stack).await;
    stack.database.wait_stored_events(run.id, 3).await;
    let reader = reader(&stack.api()).await;
    let one = ticket(&reader, &json!({})).await;
    stack.redis.kill();
    let refused = reader.request(Method::POST, TICKETS_PATH).json(&json!({}));
    problem(send(refused).await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(status(&reader, &stream_of(&run), &one).await, 503);
    stack.redis.restart().await;
    let again = eventually("tickets are available again", async || {
        let requested = reader.request(Method::POST, TICKETS_PATH).json(&json!({}));
        let response = send(requested).await;
        match response.status() {
            StatusCode::CREATED => Ok(of(&response.json().await.expect("JSON"))),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(status(&reader, &stream_of(&run), &again).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_origins_create_and_use_tickets() {
    const LISTED_ORIGIN: &str = "https://app.example";
    let mut stack = Stack::without_services().await;
    stack.set(Service::Gateway, "RUNCAST_CORS_ORIGINS", LISTED_ORIGIN);
    stack.start_all().await;
    let api = stack.api();
    let run = run_of_search(&stack).await;
    let allowed = |response: &Response| {
        let header = response.headers().get("access-control-allow-origin");
        header.map(|value| value.to_str().expect("text").to_owned())
    };
    for (origin, expected) in [
        (LISTED_ORIGIN, Some(LISTED_ORIGIN)),
        ("https://evil.example", None),
    ] {
        let preflight = api
            .anonymous(Method::OPTIONS, TICKETS_PATH)
            .header(ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        let response = send(preflight).await;
        assert_eq!(allowed(&response).as_deref(), expected, "{response:?}");
        let making = api.request(Method::POST, TICKETS_PATH).json(&json!({}));
        let response = send(making.header(ORIGIN, origin)).await;
        assert_eq!(allowed(&response).as_deref(), expected, "{response:?}");
        let one = of(&response.json().await.expect("JSON"));
        for path in streams(&run) {
            let unused = ticket(&api, &json!({})).await;
            let response = send(by_ticket(&api, &path, &unused).header(ORIGIN, origin)).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(allowed(&response).as_deref(), expected, "{response:?}");
        }
        assert_eq!(status(&api, &stream_of(&run), &one).await, 200);
        // Errors as well, so that the page can tell them apart.
        let response = by_ticket(&api, &stream_of(&run), &one).header(ORIGIN, origin);
        let response = send(response).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(allowed(&response).as_deref(), expected, "{response:?}");
    }
}
