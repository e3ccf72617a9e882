//! Sessions: one per client, listed and ended one by one, stored twice and only as a hash.

use redis::AsyncCommands as _;
use reqwest::header::COOKIE;
use reqwest::{Method, StatusCode};
use runcast_tests::api::send;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

use super::fixtures::{USER_PASSWORD, ask, second_gateway, sign_in, sign_in_with, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_creates_a_fresh_session() {
    let stack = Stack::start().await;
    let https = [("RUNCAST_PUBLIC_URL", "https://runcast.example.com")];
    let gateway = second_gateway(&stack, &https).await;
    let api = gateway.api.clone();
    user(&stack, "ada", &["viewer"]).await;
    let first = sign_in(&api, "ada").await;
    for word in ["__Host-", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(first.set.contains(word), "{}", first.set);
    }
    // A session never continues a cookie that was set before, even a valid one; that session ends.
    let name = first.cookie.split('=').next().expect("a name");
    for before in [
        format!("{name}=AAAAAAAAAAAAAAAAAAAAAA"),
        first.cookie.clone(),
    ] {
        let request = api.anonymous(Method::POST, "/v1/session");
        let request = request.header(COOKIE, &before);
        let body = json!({"user": "ada", "password": USER_PASSWORD});
        let response = send(request.json(&body)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let set = response.headers().get("set-cookie").expect("a cookie");
        assert!(!set.to_str().expect("text").starts_with(&before));
    }
    assert_eq!(first.status(Method::GET, "/v1/session").await, 401);
    let out = sign_in(&api, "ada").await;
    let response = send(out.request(Method::DELETE, "/v1/session")).await;
    let end = response.headers().get("set-cookie").expect("a cookie");
    let end = end.to_str().expect("text").to_owned();
    assert!(end.contains("Max-Age=0") && end.contains("Secure"), "{end}");
    assert_eq!(out.status(Method::GET, "/v1/session").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_has_one_session_and_user_ends_any() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    user(&stack, "ada", &["viewer"]).await;
    user(&stack, "eve", &["viewer"]).await;
    let laptop = json!({"user": "ada", "password": USER_PASSWORD, "client": "laptop"});
    let before = sign_in_with(&api, &laptop).await;
    let after = sign_in_with(&other.api, &laptop).await;
    let phone = sign_in(&api, "ada").await;
    let eve = sign_in(&api, "eve").await;
    assert_eq!(before.status(Method::GET, "/v1/session").await, 401);
    let list = after.get("/v1/sessions").await;
    let ids: Vec<&str> = list["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|session| session["id"].as_str())
        .collect();
    assert_eq!(ids.len(), 2, "{list}");
    let current = list["current"].as_str().expect("the current session");
    let cross_site = ids.iter().find(|id| **id != current).expect("the phone's");
    let path = format!("/v1/sessions/{cross_site}");
    assert_eq!(eve.status(Method::DELETE, &path).await, 404, "not hers");
    // Valid at both gateways, and ended at both.
    assert_eq!(
        phone
            .at(&other.api)
            .status(Method::GET, "/v1/session")
            .await,
        200
    );
    assert_eq!(after.status(Method::DELETE, &path).await, 204);
    for api in [&api, &other.api] {
        assert_eq!(phone.at(api).status(Method::GET, "/v1/session").await, 401);
        assert_eq!(after.at(api).status(Method::GET, "/v1/session").await, 200);
    }
    assert_eq!(after.status(Method::DELETE, "/v1/sessions").await, 204);
    assert_eq!(after.at(&api).status(Method::GET, "/v1/session").await, 401);
    // An administrator ends sessions of other users.
    let list = api.get("/v1/users/eve/sessions").await;
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1));
    ask(
        &api,
        Method::DELETE,
        "/v1/users/eve/sessions",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(
        eve.at(&other.api).status(Method::GET, "/v1/session").await,
        401
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_session_data_is_not_a_credential() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let browser = sign_in(&api, "ada").await;
    browser.get("/v1/session").await;
    let value = browser.cookie.split_once('=').expect("a pair").1;
    let rows = stack
        .database
        .query_strings("SELECT s::text FROM sessions s")
        .await;
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}session:*", stack.keys().prefix());
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    assert_eq!(keys.len(), 1, "{keys:?}");
    let copy: String = redis.get(&keys[0]).await.expect("a copy");
    let life: i64 = redis.ttl(&keys[0]).await.expect("a life");
    assert!((86_000..=86_400).contains(&life), "{life}");
    for text in rows.iter().chain(&keys).chain([&copy]) {
        assert!(!text.contains(value), "{text}");
    }
    // Neither the hash nor the id in lists is a valid session.
    let parsed: Value = serde_json::from_str(&copy).expect("JSON");
    let hash = keys[0].rsplit(':').next().expect("a hash");
    for claimed in [hash, parsed["value"]["id"].as_str().expect("an id")] {
        let request = api.anonymous(Method::GET, "/v1/session");
        let request = request.header(COOKIE, format!("runcast_session={claimed}"));
        assert_eq!(send(request).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_session_is_prolonged_once_a_minute() {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Gateway, "RUNCAST_SESSION_IDLE", "30m");
    stack.start_all().await;
    user(&stack, "ada", &["viewer"]).await;
    let browser = sign_in(&stack.api(), "ada").await;
    let left = "SELECT (extract(epoch FROM expires_at - now()) / 60)::bigint FROM sessions";
    assert_eq!(stack.database.query_number(left).await, 30);
    // Twenty minutes later, by the state of both stores.
    let later = "UPDATE sessions SET last_seen_at = last_seen_at - interval '20 min',
                        expires_at = expires_at - interval '20 min'";
    stack.database.execute(later).await;
    let gone = "SELECT count(*) FROM access_changes";
    stack.database.wait_for_number(gone, 0).await;
    for _ in 0..5 {
        assert_eq!(browser.status(Method::GET, "/v1/session").await, 200);
    }
    assert_eq!(stack.database.query_number(left).await, 30);
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}session:*", stack.keys().prefix());
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    let life: i64 = redis.ttl(&keys[0]).await.expect("a life");
    assert!((1_700..=1_800).contains(&life), "{life}");
    let seen = "SELECT last_seen_at::text FROM sessions";
    let before = stack.database.query_strings(seen).await;
    assert_eq!(browser.status(Method::GET, "/v1/session").await, 200);
    let after = stack.database.query_strings(seen).await;
    assert_eq!(after, before, "not written again within the minute");
    let ended = "UPDATE sessions SET expires_at = now() - interval '1 s'";
    stack.database.execute(ended).await;
    stack.database.wait_for_number(gone, 0).await;
    assert_eq!(browser.status(Method::GET, "/v1/session").await, 401);
}
