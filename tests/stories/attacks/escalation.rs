//! A client with some rights tries to get more.

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::access::fixtures::{Browser, USER_PASSWORD, ask, sign_in, sign_in_with, user};
use super::fixtures::assert_calm;

async fn refused(browser: &Browser, method: Method, path: &str, body: Value, status: u16) {
    let response = send(browser.request(method.clone(), path).json(&body)).await;
    assert_eq!(response.status().as_u16(), status, "{method} {path} {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_cannot_grant_rights_they_lack() {
    let stack = Stack::start().await;
    let api = stack.api();
    let ada = user(&stack, "ada", &["operator"]).await;
    user(&stack, "boss", &["admin"]).await;
    let browser = sign_in(&api, "ada").await;
    let before = stack
        .database
        .query_strings("SELECT r::text FROM user_roles r ORDER BY 1")
        .await;
    for who in [ada.as_str(), "ada", "ada@example.com", "boss"] {
        for (method, rest, body) in [
            (Method::PUT, "/roles/admin", Value::Null),
            (Method::DELETE, "/roles/admin", Value::Null),
            (Method::PATCH, "", json!({"disabled": true})),
            (
                Method::PATCH,
                "",
                json!({"password": "another horse battery"}),
            ),
            (Method::PATCH, "", json!({"email": "ada@evil.example"})),
            (Method::GET, "", Value::Null),
            (Method::GET, "/sessions", Value::Null),
            (Method::DELETE, "/sessions", Value::Null),
        ] {
            let path = format!("/v1/users/{who}{rest}");
            refused(&browser, method, &path, body, 403).await;
        }
    }
    let admin = json!({"name": "eve", "email": "e@example.com", "password": USER_PASSWORD, "roles": ["admin"]});
    refused(&browser, Method::POST, "/v1/users", admin, 403).await;
    let wide = json!({"permissions": ["admin"]});
    refused(&browser, Method::PATCH, "/v1/roles/operator", wide, 403).await;
    let role = json!({"name": "mine", "permissions": ["admin"]});
    refused(&browser, Method::POST, "/v1/roles", role, 403).await;
    for path in [
        "/v1/audit",
        "/v1/webhooks",
        "/v1/jobs",
        "/v1/tokens?all",
        "/v1/users",
    ] {
        refused(&browser, Method::GET, path, Value::Null, 403).await;
    }
    let hook = json!({"url": "https://evil.example/", "on": ["failed"]});
    refused(&browser, Method::POST, "/v1/webhooks", hook, 403).await;
    let after = stack
        .database
        .query_strings("SELECT r::text FROM user_roles r ORDER BY 1")
        .await;
    assert_eq!(before, after);
    assert_calm(&stack);
}

/// Unknown fields of a body are refused by name: none reaches the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_are_refused() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["operator"]).await;
    let ada = sign_in(&api, "ada").await;
    let run = api.create_run("x").await.id;
    for (method, path, mut body, more) in requests_with_extra_field(run) {
        body[more] = json!("admin");
        let response = send(ada.request(method.clone(), &path).json(&body)).await;
        let (status, text) = (response.status(), response.text().await.expect("a body"));
        assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path}: {text}");
        assert!(text.contains(more), "{method} {path}: {text}");
    }
    // The same for administrators, who could do it in other ways.
    for (path, body) in [
        (
            "/v1/users",
            json!({"name": "e", "email": "e@example.com", "id": "x"}),
        ),
        (
            "/v1/roles",
            json!({"name": "e", "permissions": [], "built_in": true}),
        ),
        (
            "/v1/webhooks",
            json!({"url": "https://e.example/", "on": ["failed"], "secret": "x"}),
        ),
    ] {
        ask(&api, Method::POST, path, &body, 400).await;
    }
    // A duplicate field must not be checked in one value and used in the other.
    let twice = r#"{"name":"x","scopes":["runs:read"],"scopes":["admin"]}"#;
    let response = send(ada.request(Method::POST, "/v1/tokens").body(twice)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_calm(&stack);
}

/// Valid requests, each with the name of a field that its body does not have.
fn requests_with_extra_field(run: Uuid) -> Vec<(Method, String, Value, &'static str)> {
    vec![
        (
            Method::PATCH,
            "/v1/session".to_owned(),
            json!({"preferences": {}}),
            "roles",
        ),
        (
            Method::PATCH,
            "/v1/session".to_owned(),
            json!({"preferences": {}}),
            "disabled",
        ),
        (
            Method::PATCH,
            "/v1/session".to_owned(),
            json!({"preferences": {}}),
            "email",
        ),
        (
            Method::PUT,
            "/v1/session/password".to_owned(),
            json!({"password": USER_PASSWORD, "new_password": "another horse battery"}),
            "user",
        ),
        (
            Method::POST,
            "/v1/session".to_owned(),
            json!({"user": "ada", "password": USER_PASSWORD}),
            "scopes",
        ),
        (
            Method::POST,
            "/v1/tokens".to_owned(),
            json!({"name": "x", "scopes": ["runs:read"]}),
            "user_id",
        ),
        (
            Method::POST,
            "/v1/tokens".to_owned(),
            json!({"name": "x", "scopes": ["runs:read"]}),
            "hash",
        ),
        (
            Method::POST,
            "/v1/runs".to_owned(),
            json!({"name": "x"}),
            "id",
        ),
        (
            Method::POST,
            "/v1/runs".to_owned(),
            json!({"name": "x"}),
            "created_by",
        ),
        (
            Method::POST,
            format!("/v1/runs/{run}/control"),
            json!({"command": "pause"}),
            "by",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaked_token_cannot_be_extended() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["operator"]).await;
    let ada = sign_in(&api, "ada").await;
    let make = async |scopes: &[&str]| {
        let body = json!({"name": "script", "scopes": scopes});
        let created = ada.send(Method::POST, "/v1/tokens", &body, 201).await;
        let text = |name: &str| created[name].as_str().expect("a text").to_owned();
        (text("id"), text("token"))
    };
    // Beyond her own scopes nothing is created.
    for scopes in [
        &["admin"][..],
        &["runs:read", "admin"],
        &["ADMIN"],
        &["runs:*"],
        &[""],
    ] {
        let body = json!({"name": "x", "scopes": scopes});
        let response = send(ada.request(Method::POST, "/v1/tokens").json(&body)).await;
        assert!(response.status().is_client_error(), "{scopes:?}");
    }
    let (leaked_id, leaked) = make(&["runs:read"]).await;
    let (other_id, other) = make(&["runs:read", "runs:publish"]).await;
    let thief = Api::new(api.base(), &leaked);
    let browser = sign_in_with(&api, &json!({"token": leaked})).await;
    // By the token itself, and by a session opened with it.
    let requested = async |method: Method, path: &str, body: Value| -> [u16; 2] {
        let by_token = send(thief.request(method.clone(), path).json(&body)).await;
        let by_session = send(browser.request(method, path).json(&body)).await;
        [by_token.status().as_u16(), by_session.status().as_u16()]
    };
    let more = json!({"name": "more", "scopes": ["runs:read"]});
    assert_eq!(requested(Method::POST, "/v1/tokens", more).await, [403; 2]);
    let likes = json!({"preferences": {}});
    assert_eq!(
        requested(Method::PATCH, "/v1/session", likes).await,
        [403; 2]
    );
    let password = json!({"password": USER_PASSWORD, "new_password": "another horse battery"});
    let path = "/v1/session/password";
    assert_eq!(requested(Method::PUT, path, password).await, [403; 2]);
    let run = json!({"name": "x"});
    assert_eq!(requested(Method::POST, "/v1/runs", run).await, [403; 2]);
    // It cannot end her other tokens or sessions.
    let path = format!("/v1/tokens/{other_id}");
    assert_eq!(
        requested(Method::DELETE, &path, Value::Null).await,
        [404; 2]
    );
    let list = ada.get("/v1/sessions").await;
    let current = list["current"].as_str().expect("hers");
    let path = format!("/v1/sessions/{current}");
    assert_eq!(
        requested(Method::DELETE, &path, Value::Null).await,
        [404; 2]
    );
    let seen = thief.get("/v1/sessions").await.to_string();
    assert!(!seen.contains(current), "{seen}");
    let fine = Api::new(api.base(), &other);
    assert_eq!(fine.get("/v1/session").await["name"], "script");
    assert_eq!(ada.status(Method::GET, "/v1/session").await, 200);
    // It may revoke itself, and its session ends with it.
    let path = format!("/v1/tokens/{leaked_id}");
    let ended = send(thief.request(Method::DELETE, &path)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert_eq!(browser.status(Method::GET, "/v1/session").await, 401);
    assert_calm(&stack);
}

/// The command of a run has a token of the run, and may be hostile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_a_run_reaches_nothing_else() {
    let stack = Stack::start().await;
    let api = stack.api();
    let body = json!({"name": "service", "scopes": ["runs:publish", "runs:read"]});
    let parent = ask(&api, Method::POST, "/v1/tokens", &body, 201).await;
    let text = |name: &str| parent[name].as_str().expect("a text").to_owned();
    let service = Api::new(api.base(), &text("token"));
    let run = service.create_run("hostile").await;
    let sibling = service.create_run("sibling").await;
    let thief = Api::new(api.base(), &run.token);
    let browser = sign_in_with(&api, &json!({"token": run.token})).await;
    let session = browser.request(Method::GET, "/v1/session");
    assert_eq!(send(session).await.status(), StatusCode::OK);
    for path in [
        format!("/v1/runs/{}", sibling.id),
        format!("/v1/runs/{}/events", sibling.id),
        "/v1/tokens".to_owned(),
        "/v1/tokens?all".to_owned(),
        format!("/v1/tokens?all&run={}", run.id),
        "/v1/users".to_owned(),
        "/v1/audit".to_owned(),
    ] {
        ask(&thief, Method::GET, &path, &Value::Null, 403).await;
        refused(&browser, Method::GET, &path, Value::Null, 403).await;
    }
    // It makes nothing that outlives it: no run, no token, no publish access of another run.
    let publish = |run: Uuid| format!("/v1/runs/{run}/publish");
    for (path, body) in [
        ("/v1/runs".to_owned(), json!({"name": "x"})),
        ("/v1/tokens".to_owned(), body),
        (publish(sibling.id), Value::Null),
        (
            format!("/v1/runs/{}/control", run.id),
            json!({"command": "cancel"}),
        ),
    ] {
        ask(&thief, Method::POST, &path, &body, 403).await;
        refused(&browser, Method::POST, &path, body, 403).await;
    }
    let joined = ask(&thief, Method::POST, &publish(run.id), &Value::Null, 200).await;
    assert_eq!(joined["token"], run.token);
    // It sees and ends no token but itself.
    let of_sibling = format!("/v1/tokens?run={}", sibling.id);
    let seen = thief.get(&of_sibling).await;
    assert_eq!(seen["tokens"], json!([]), "{seen}");
    let ended = ask(&thief, Method::DELETE, &of_sibling, &Value::Null, 200).await;
    assert_eq!(ended["revoked"], 0);
    let path = format!("/v1/tokens/{}", text("id"));
    ask(&thief, Method::DELETE, &path, &Value::Null, 404).await;
    let own = thief.get(&format!("/v1/tokens?run={}", run.id)).await;
    assert_eq!(own["tokens"].as_array().map(Vec::len), Some(1), "{own}");
    for api in [&service, &Api::new(api.base(), &sibling.token)] {
        assert_eq!(
            api.get("/v1/session").await["scopes"],
            json!(["runs:read", "runs:publish"])
        );
    }
    // With its parent it ends, and the session that was opened with it.
    ask(&api, Method::DELETE, &path, &Value::Null, 204).await;
    ask(&thief, Method::GET, "/v1/session", &Value::Null, 401).await;
    refused(&browser, Method::GET, "/v1/session", Value::Null, 401).await;
    assert_calm(&stack);
}
