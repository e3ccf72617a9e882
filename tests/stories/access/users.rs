//! Users: unique names and addresses, sign-in by either, and the same refusal for all failures.

use reqwest::{Method, StatusCode};
use runcast_tests::api::{problem, send};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

use super::fixtures::{
    USER_PASSWORD, ask, json_of, operator, sign_in, sign_in_with, try_sign_in, user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_administrator_is_created_by_command() {
    let stack = Stack::start().await;
    let id = user(&stack, "ada", &["admin"]).await;
    let browser = sign_in(&stack.api(), "Ada").await;
    let who = browser.get("/v1/session").await;
    assert_eq!(who["name"], "ada");
    assert_eq!(who["scopes"], json!(["admin"]));
    assert_eq!(who["user"]["id"], Value::from(id));
    let (succeeded, output) = operator(&stack, &["user", "list"]).await;
    assert!(succeeded && output.contains("ada@example.com"), "{output}");
    // The password is stored nowhere.
    let rows = stack
        .database
        .query_strings("SELECT u::text FROM users u")
        .await;
    assert!(rows[0].contains("$argon2id$") && !rows[0].contains(USER_PASSWORD));
    let (succeeded, output) = operator(&stack, &["user", "create", "b", "--email", "b@c"]).await;
    assert!(
        !succeeded && output.contains("--password-stdin"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_emails_are_unique_ignoring_case() {
    let stack = Stack::start().await;
    let api = stack.api();
    let new = |name: &str, email: &str| json!({"name": name, "email": email, "password": USER_PASSWORD, "roles": ["viewer"]});
    // Ten at once: one wins.
    let body = new("Grace", "grace@example.com");
    let asking = (0..10).map(|_| send(api.request(Method::POST, "/v1/users").json(&body)));
    let responses = futures::future::join_all(asking).await;
    let statuses: Vec<u16> = responses.iter().map(|one| one.status().as_u16()).collect();
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!((count(201), count(409)), (1, 9), "{statuses:?}");
    for (body, word) in [
        (new("gRACE", "other@example.com"), "name"),
        (new("other", "GRACE@example.com"), "email"),
    ] {
        let response = send(api.request(Method::POST, "/v1/users").json(&body)).await;
        let detail = problem(response, StatusCode::CONFLICT).await;
        assert!(detail.contains(word), "{detail}");
    }
    for body in [
        new("gr@ce", "x@example.com"),
        new("", "x@example.com"),
        new("x", "no address"),
        new("x\0", "x@example.com"),
        json!({"name": "x", "email": "x@example.com", "password": "short"}),
    ] {
        ask(&api, Method::POST, "/v1/users", &body, 400).await;
    }
    let unknown = json!({"name": "x", "email": "x@example.com", "roles": ["pope"]});
    ask(&api, Method::POST, "/v1/users", &unknown, 404).await;
    let (mut seen, mut path) = (0, "/v1/users?limit=1".to_owned());
    loop {
        let page = api.get(&path).await;
        seen += page["users"].as_array().map_or(0, Vec::len);
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/users?limit=1&after={next}");
    }
    assert_eq!(seen, 1, "the refused user was not created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sign_in_failures_look_the_same() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let no_password = json!({"name": "bot", "email": "bot@example.com"});
    ask(&api, Method::POST, "/v1/users", &no_password, 201).await;
    user(&stack, "gone", &["viewer"]).await;
    let disable = json!({"disabled": true});
    ask(&api, Method::PATCH, "/v1/users/gone", &disable, 200).await;
    let mut received = Vec::new();
    for (name, password) in [
        ("ada", "wrong horse battery"),
        ("nobody", USER_PASSWORD),
        ("bot", USER_PASSWORD),
        ("gone", USER_PASSWORD),
        ("\0", USER_PASSWORD),
        (&*"x".repeat(300), USER_PASSWORD),
    ] {
        let body = json!({"user": name, "password": password});
        let response = try_sign_in(&api, &body).await;
        assert!(response.headers().get("set-cookie").is_none());
        received.push(problem(response, StatusCode::UNAUTHORIZED).await);
    }
    received.dedup();
    assert_eq!(received.len(), 1, "{received:?}");
    for body in [
        json!({}),
        json!({"user": "ada"}),
        json!({"token": stack.token(), "password": USER_PASSWORD}),
    ] {
        let response = try_sign_in(&api, &body).await;
        problem(response, StatusCode::BAD_REQUEST).await;
    }
    let failed = "SELECT coalesce(sum((details->>'count')::int), 0) FROM audit_log WHERE action = 'session.failed'";
    stack.database.wait_for_number(failed, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_user_is_signed_out_until_enabled() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let browser = sign_in(&api, "ada").await;
    let created = browser
        .send(
            Method::POST,
            "/v1/tokens",
            &json!({"name": "script", "scopes": ["runs:read"]}),
            201,
        )
        .await;
    let token = created["token"].as_str().expect("a token");
    let runs = async |token: &str| super::fixtures::status_with(&api, token, "/v1/runs").await;
    assert_eq!(runs(token).await, 200);
    assert_eq!(browser.status(Method::GET, "/v1/runs").await, 200);
    let switch = |disabled: bool| json!({"disabled": disabled});
    ask(&api, Method::PATCH, "/v1/users/ada", &switch(true), 200).await;
    assert_eq!(runs(token).await, 401);
    assert_eq!(browser.status(Method::GET, "/v1/runs").await, 401);
    ask(&api, Method::PATCH, "/v1/users/ada", &switch(false), 200).await;
    assert_eq!(
        runs(token).await,
        200,
        "the token is valid while its owner is enabled"
    );
    assert_eq!(browser.status(Method::GET, "/v1/runs").await, 401);
    sign_in(&api, "ada@EXAMPLE.com").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_changes_preferences_and_password() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let (here, there) = (sign_in(&api, "ada").await, sign_in(&api, "ada").await);
    let likes = json!({"preferences": {"clock": true}});
    let received = here.send(Method::PATCH, "/v1/session", &likes, 200).await;
    assert_eq!(received["user"]["preferences"], json!({"clock": true}));
    let wrong = json!({"preferences": [1]});
    here.send(Method::PATCH, "/v1/session", &wrong, 400).await;
    let path = "/v1/session/password";
    let new = "another horse battery";
    let change = |old: &str| json!({"password": old, "new_password": new});
    here.send(Method::PUT, path, &change("wrong horse battery"), 403)
        .await;
    here.send(Method::PUT, path, &change(USER_PASSWORD), 204)
        .await;
    assert_eq!(here.status(Method::GET, "/v1/session").await, 200);
    assert_eq!(there.status(Method::GET, "/v1/session").await, 401);
    let old = try_sign_in(&api, &json!({"user": "ada", "password": USER_PASSWORD})).await;
    json_of(old, StatusCode::UNAUTHORIZED).await;
    sign_in_with(&api, &json!({"user": "ada", "password": new})).await;
    // A token may not change its owner.
    ask(&api, Method::PATCH, "/v1/session", &likes, 403).await;
    ask(&api, Method::PUT, path, &change(USER_PASSWORD), 403).await;
}
