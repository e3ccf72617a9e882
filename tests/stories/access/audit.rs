//! The audit log records all changes of access and all commands to runs: by which user, and without
//! secrets.

use reqwest::Method;
use runcast_tests::api::Api;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixtures::{USER_PASSWORD, ask, sign_in, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_records_all_access_changes() {
    let stack = Stack::start().await;
    let api = stack.api();
    let id = user(&stack, "ada", &["admin"]).await;
    let ada = sign_in(&api, "ada").await;
    let role = json!({"name": "team", "permissions": ["runs:read"]});
    ada.send(Method::POST, "/v1/roles", &role, 201).await;
    let body = json!({"name": "eve", "email": "eve@example.com", "password": USER_PASSWORD});
    ada.send(Method::POST, "/v1/users", &body, 201).await;
    let eve = "/v1/users/eve";
    ada.send(Method::PUT, "/v1/users/eve/roles/team", &Value::Null, 204)
        .await;
    ada.send(
        Method::DELETE,
        "/v1/users/eve/roles/team",
        &Value::Null,
        204,
    )
    .await;
    ada.send(Method::PATCH, eve, &json!({"disabled": true}), 200)
        .await;
    ada.send(Method::DELETE, "/v1/roles/team", &Value::Null, 204)
        .await;
    let token = json!({"name": "script", "scopes": ["runs:read"]});
    let created = ada.send(Method::POST, "/v1/tokens", &token, 201).await;
    let text = |name: &str| created[name].as_str().expect("a text").to_owned();
    let path = format!("/v1/tokens/{}", text("id"));
    ada.send(Method::DELETE, &path, &Value::Null, 204).await;
    let run = api.create_run("controlled").await.id;
    let path = format!("/v1/runs/{run}/control");
    let input = json!({"command": "input", "data": "a secret answer\n"});
    ada.send(Method::POST, &path, &input, 202).await;
    let of_ada = format!("/v1/audit?actor={id}");
    assert_eq!(
        actions(&api, &of_ada).await,
        [
            "run.control",
            "token.revoked",
            "token.created",
            "role.deleted",
            "user.disabled",
            "role.revoked",
            "role.granted",
            "user.created",
            "role.created",
            "session.created",
        ]
    );
    assert_eq!(
        actions(&api, "/v1/audit?actor=ada&action=role.granted")
            .await
            .len(),
        1
    );
    assert_eq!(
        actions(&api, "/v1/audit?actor=ada&action=role.")
            .await
            .len(),
        4
    );
    assert_publish_token_is_logged(&api, run).await;
    assert_eq!(count_by_pages(&api, &of_ada).await, 10);
    let rows = stack
        .database
        .query_strings("SELECT a::text FROM audit_log a")
        .await
        .join("\n");
    for secret in [USER_PASSWORD, "$argon2", &text("token"), "a secret answer"] {
        assert!(!rows.contains(secret), "{secret}");
    }
    // For administrators only.
    user(&stack, "bob", &["operator"]).await;
    let bob = sign_in(&api, "bob").await;
    assert_eq!(bob.status(Method::GET, "/v1/audit").await, 403);
    ask(&api, Method::GET, "/v1/audit?before=x", &Value::Null, 400).await;
}

/// The token for publishing belongs to the creator of the run, and is in no list.
async fn assert_publish_token_is_logged(api: &Api, run: Uuid) {
    let created = api.get("/v1/audit?action=token.created&limit=1").await;
    let entry = &created["entries"][0];
    assert_eq!(entry["details"]["run"], run.to_string(), "{created}");
    assert_eq!(entry["actor_name"], "story", "{created}");
    let tokens = api.get("/v1/tokens?all").await;
    assert!(!tokens.to_string().contains(&run.to_string()), "{tokens}");
    let of_operator = actions(api, "/v1/audit?actor=runcastd").await;
    assert_eq!(of_operator, ["user.created", "token.created"]);
}

/// The number of entries, read page by page.
async fn count_by_pages(api: &Api, of_ada: &str) -> usize {
    let (mut all, mut path) = (Vec::new(), format!("{of_ada}&limit=3"));
    loop {
        let page = api.get(&path).await;
        all.extend(page["entries"].as_array().expect("a list").clone());
        let Some(next) = page["next"].as_i64() else {
            break;
        };
        path = format!("{of_ada}&limit=3&before={next}");
    }
    all.len()
}

async fn actions(api: &Api, path: &str) -> Vec<String> {
    let page = api.get(path).await;
    let entries = page["entries"].as_array().expect("a list");
    let action = |entry: &Value| entry["action"].as_str().expect("an action").to_owned();
    entries.iter().map(action).collect()
}
