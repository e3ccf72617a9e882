//! A user who may see the runs of one team tries to reach those of another, by every route.

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, CreatedRun, send};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

use super::super::access::fixtures::{Browser, ask, first_frame, sign_in, user};
use super::fixtures::assert_calm;

/// The output and the name of the other team's run.
const SECRET_NAME: &str = "falcon-heavy-budget";

struct TwoTeams {
    stack: Stack,
    /// Of the team `search`, and nothing else.
    ada: Browser,
    /// One of her tokens.
    token: String,
    own: CreatedRun,
    other: CreatedRun,
}

async fn two_teams() -> TwoTeams {
    let stack = Stack::start().await;
    let api = stack.api();
    let role = json!({
        "name": "search", "permissions": ["admin"], "labels": {"team": "search"},
    });
    ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    user(&stack, "ada", &["search"]).await;
    let ada = sign_in(&api, "ada").await;
    let target = json!({"name": "script", "scopes": ["runs:read", "runs:publish", "runs:control"]});
    let created = ada.send(Method::POST, "/v1/tokens", &target, 201).await;
    let labels = |team: &str, name: &str| json!({"name": name, "labels": {"team": team}});
    let own = api.create(&labels("search", "mine")).await;
    let other = api.create(&labels("ads", SECRET_NAME)).await;
    let mut agent = Publisher::new(other.publisher_connection().await, stack.keys(), other.id);
    agent.publish(&numbered_lines(SECRET_NAME, 1..=3)).await;
    stack.database.wait_stored_events(other.id, 3).await;
    TwoTeams {
        token: created["token"].as_str().expect("a token").to_owned(),
        stack,
        ada,
        own,
        other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_teams_runs_are_unreachable() {
    let two_teams = two_teams().await;
    let (api, other) = (two_teams.stack.api(), two_teams.other.id);
    let by_token = Api::new(api.base(), &two_teams.token);
    let ask = async |method: &Method, path: &str, body: &Value| {
        let browser = two_teams.ada.request(method.clone(), path).json(body);
        let token = by_token.request(method.clone(), path).json(body);
        let mut responses = Vec::new();
        for request in [browser, token] {
            let response = send(request).await;
            let status = response.status();
            responses.push((status, response.text().await.expect("a body")));
        }
        responses
    };
    let event = json!({"kind": "output", "data": {"text": "forged"}});
    let bound = json!({"name": "x", "scopes": ["runs:read"], "run": other});
    let nothing = Value::Null;
    // Another spelling of the id means the same run.
    let (upper, simple) = (other.to_string().to_uppercase(), other.simple().to_string());
    for id in [other.to_string(), upper, simple, format!("%7B{other}%7D")] {
        for (method, rest, body) in [
            (Method::GET, "", &nothing),
            (Method::GET, "/events", &nothing),
            (Method::GET, "/text", &nothing),
            (Method::GET, "/text?follow", &nothing),
            (Method::GET, "/search?q=falcon", &nothing),
            (Method::GET, "/agents", &nothing),
            (Method::GET, "/stream", &nothing),
            (Method::GET, "/stream?after=0-0", &nothing),
            (Method::POST, "/publish", &nothing),
            (Method::POST, "/events", &event),
            (Method::POST, "/control", &json!({"command": "cancel"})),
        ] {
            let path = format!("/v1/runs/{id}{rest}");
            for (status, text) in ask(&method, &path, body).await {
                assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {text}");
                assert!(!text.contains(SECRET_NAME), "{path}: {text}");
            }
        }
    }
    let watch = format!("/v1/watch?run={}&run={other}", two_teams.own.id);
    assert_eq!(ask(&Method::GET, &watch, &nothing).await[0].0, 403);
    // Lists leave it out, whatever the filter.
    for path in [
        "/v1/runs",
        "/v1/runs?label=team=ads",
        "/v1/runs?label=team=search&label=team=ads",
        "/v1/runs?status=running",
        "/v1/agents",
        "/v1/agents?health=alive",
    ] {
        for (status, text) in ask(&Method::GET, path, &nothing).await {
            assert_eq!(status, StatusCode::OK, "{path}: {text}");
            let named = [SECRET_NAME.to_owned(), other.to_string()];
            assert!(
                !named.iter().any(|name| text.contains(name)),
                "{path}: {text}"
            );
        }
    }
    // Administration has no bounds, so her rights include none of it.
    for path in [
        "/v1/webhooks",
        "/v1/jobs",
        "/v1/audit",
        "/v1/users",
        "/v1/roles",
    ] {
        assert_eq!(ask(&Method::GET, path, &nothing).await[0].0, 403, "{path}");
    }
    let hook = json!({"url": "https://e.example/", "on": ["failed"], "labels": {"team": "ads"}});
    assert_eq!(ask(&Method::POST, "/v1/webhooks", &hook).await[0].0, 403);
    assert_tokens_are_bounded(&two_teams, bound).await;
    assert_calm(&two_teams.stack);
}

/// A token that she creates for the other run, or for its labels, is limited by her role as well.
async fn assert_tokens_are_bounded(two_teams: &TwoTeams, bound: Value) {
    let (api, other) = (two_teams.stack.api(), two_teams.other.id);
    for target in [
        bound,
        json!({"name": "y", "scopes": ["runs:read"], "labels": {"team": "ads"}}),
    ] {
        let response = send(
            two_teams
                .ada
                .request(Method::POST, "/v1/tokens")
                .json(&target),
        )
        .await;
        let created: Value = response.json().await.expect("JSON");
        if let Some(token) = created["token"].as_str() {
            let request = api.anonymous(Method::GET, &format!("/v1/runs/{other}"));
            let status = send(request.bearer_auth(token)).await.status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{target}");
        }
    }
}

/// Labels are fixed: no route changes them, and no run is created twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_cannot_be_created_for_or_moved_to_other_teams() {
    let two_teams = two_teams().await;
    let (api, ada) = (two_teams.stack.api(), &two_teams.ada);
    for labels in [
        json!({"team": "ads"}),
        json!({"Team": "search"}),
        json!({"team": "search "}),
        json!({"team": "SEARCH"}),
        json!({}),
    ] {
        let body = json!({"name": "x", "labels": labels});
        ada.send(Method::POST, "/v1/runs", &body, 403).await;
    }
    for team in [
        json!(["search"]),
        json!({"$ne": 1}),
        json!(true),
        Value::Null,
    ] {
        let body = json!({"name": "x", "labels": {"team": team}});
        ada.send(Method::POST, "/v1/runs", &body, 400).await;
    }
    let path = format!("/v1/runs/{}", two_teams.other.id);
    for method in [Method::PATCH, Method::PUT, Method::POST] {
        let body = json!({"labels": {"team": "search"}});
        let response = send(ada.request(method, &path).json(&body)).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    ada.send(Method::DELETE, &path, &Value::Null, 403).await;
    // An idempotency key with which she created a run for the other team, when she belonged to it,
    // no longer returns that run.
    let key = "idempotency-key";
    let create = async |team: &str, name: &str| {
        let request = ada.request(Method::POST, "/v1/runs").header(key, name);
        let response = send(request.json(&json!({"labels": {"team": team}}))).await;
        let status = response.status().as_u16();
        (status, response.text().await.expect("a body"))
    };
    let narrow = |team: &str| json!({"labels": {"team": team}});
    let role = "/v1/roles/search";
    ask(&api, Method::PATCH, role, &narrow("ads"), 200).await;
    assert_eq!(create("ads", "one").await.0, 201);
    assert_eq!(create("ads", "one").await.0, 200);
    ask(&api, Method::PATCH, role, &narrow("search"), 200).await;
    let (status, text) = create("search", "one").await;
    assert_eq!(status, 403, "{text}");
    assert!(!text.contains("rct_"), "{text}");
    // Keys belong to their user: the same key of an administrator is another one.
    let request = api.request(Method::POST, "/v1/runs").header(key, "two");
    let hidden =
        send(request.json(&json!({"name": SECRET_NAME, "labels": {"team": "search"}}))).await;
    assert_eq!(hidden.status(), StatusCode::CREATED);
    let (status, text) = create("search", "two").await;
    assert_eq!(status, 201, "{text}");
    assert!(!text.contains(SECRET_NAME), "{text}");
    assert_calm(&two_teams.stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_run_streams_hide_other_teams() {
    let two_teams = two_teams().await;
    let api = two_teams.stack.api();
    let stream = async |path: &str| {
        let request = two_teams.ada.request(Method::GET, path);
        let response = send(request.header("accept", "text/event-stream")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Sse::from_response(response).await.with_heartbeats()
    };
    let mut feed = stream("/v1/feed").await;
    feed.read_until("ready").await;
    let watch = two_teams
        .ada
        .request(Method::GET, "/v1/watch?label=team=ads");
    let watch = send(watch.header("accept", "text/event-stream")).await;
    let ready = first_frame(watch).await;
    assert!(
        ready.contains("event: ready"),
        "there is nothing to watch: {ready}"
    );
    // Events of the other team, then one of hers, which must be the first that she receives.
    let more = api
        .create(&json!({"name": SECRET_NAME, "labels": {"team": "ads"}}))
        .await;
    let connection = more.publisher_connection().await;
    let mut agent = Publisher::new(connection, two_teams.stack.keys(), more.id);
    agent.publish(&numbered_lines(SECRET_NAME, 1..=3)).await;
    let own = api.create(&json!({"labels": {"team": "search"}})).await;
    let frames = feed.read_until("state").await;
    let responses = frames.last().expect("a frame").json();
    assert_eq!(responses["run"], json!(own.id), "{frames:?}");
    drop(feed);
    assert_calm(&two_teams.stack);
}
