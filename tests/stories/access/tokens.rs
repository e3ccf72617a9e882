//! Tokens: shown once, limited by their creator's rights, with counted uses, and refused everywhere
//! once revoked.

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

use super::fixtures::{
    ask, make_viewer, new_token, operator, second_gateway, sign_in, status_with, user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_token_is_refused_before_the_response() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    for round in 0..5 {
        let body = json!({"name": format!("token {round}"), "scopes": ["runs:read"]});
        let (id, token) = new_token(&api, body).await;
        for api in [&api, &other.api] {
            assert_eq!(status_with(api, &token, "/v1/runs").await, 200);
        }
        let path = format!("/v1/tokens/{id}");
        ask(&other.api, Method::DELETE, &path, &Value::Null, 204).await;
        for api in [&api, &other.api] {
            assert_eq!(status_with(api, &token, "/v1/runs").await, 401);
        }
        ask(&api, Method::DELETE, &path, &Value::Null, 404).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_never_exceeds_its_owners_current_rights() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["operator"]).await;
    let ada = sign_in(&api, "ada").await;
    let body = |scopes: &[&str]| json!({"name": "script", "scopes": scopes});
    let path = "/v1/tokens";
    ada.send(Method::POST, path, &body(&["admin"]), 403).await;
    ada.send(Method::POST, path, &body(&["runs:fly"]), 400)
        .await;
    ada.send(Method::POST, path, &body(&[]), 400).await;
    let created = ada
        .send(
            Method::POST,
            path,
            &body(&["runs:read", "runs:publish"]),
            201,
        )
        .await;
    let token = created["token"].as_str().expect("a token");
    let of_ada = Api::new(api.base(), token);
    of_ada.create_run("by a script").await;
    ask(&of_ada, Method::POST, path, &body(&["runs:read"]), 403).await;
    // Ada becomes a viewer, and her token as well.
    make_viewer(&api, "ada").await;
    let run = json!({"name": "one more"});
    ask(&of_ada, Method::POST, "/v1/runs", &run, 403).await;
    assert_eq!(status_with(&api, token, "/v1/runs").await, 200);
    // She sees her own tokens; an administrator sees all.
    let own = ada.get("/v1/tokens").await;
    assert_eq!(own["tokens"].as_array().map(Vec::len), Some(1), "{own}");
    assert!(!own.to_string().contains(token));
    assert_eq!(ada.status(Method::GET, "/v1/tokens?all").await, 403);
    let all = api.get("/v1/tokens?all").await;
    assert_eq!(all["tokens"].as_array().map(Vec::len), Some(2), "{all}");
    // A session that was opened with a token ends with it.
    let of_token = super::fixtures::sign_in_with(&api, &json!({"token": token})).await;
    assert_eq!(of_token.status(Method::GET, "/v1/session").await, 200);
    let id = created["id"].as_str().expect("an id");
    assert_eq!(
        ada.status(Method::DELETE, &format!("{path}/{id}")).await,
        204
    );
    assert_eq!(of_token.status(Method::GET, "/v1/session").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_bounds_and_expiry_are_enforced() {
    let stack = Stack::start().await;
    let api = stack.api();
    let search = api.create(&json!({"labels": {"team": "search"}})).await;
    let ads = api.create(&json!({"labels": {"team": "ads"}})).await;
    let one = json!({"name": "one", "scopes": ["runs:read"], "run": search.id});
    let team = json!({"name": "team", "scopes": ["admin"], "labels": {"team": "search"}});
    for body in [one, team] {
        let (_, token) = new_token(&api, body).await;
        let mine = Api::new(api.base(), &token);
        let list = mine.get("/v1/runs").await;
        assert_eq!(list["runs"].as_array().map(Vec::len), Some(1), "{list}");
        for (run, status) in [(search.id, 200), (ads.id, 403)] {
            for rest in ["", "/events", "/agents"] {
                let path = format!("/v1/runs/{run}{rest}");
                assert_eq!(status_with(&api, &token, &path).await, status, "{path}");
            }
        }
        // A run outside of the bounds is answered like a missing one.
        let nowhere = format!("/v1/runs/{}", uuid::Uuid::now_v7());
        assert_eq!(status_with(&api, &token, &nowhere).await, 403);
        // A limited token cannot administrate.
        assert_eq!(status_with(&api, &token, "/v1/users").await, 403);
    }
    let missing = json!({"name": "x", "scopes": ["runs:read"], "run": uuid::Uuid::now_v7()});
    ask(&api, Method::POST, "/v1/tokens", &missing, 404).await;
    let past = json!({"name": "x", "scopes": ["runs:read"], "expires_at": "2020-01-01T00:00:00Z"});
    ask(&api, Method::POST, "/v1/tokens", &past, 400).await;
    let (id, token) = new_token(&api, json!({"name": "short", "scopes": ["runs:read"]})).await;
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 200);
    let expire = format!("UPDATE tokens SET expires_at = now() WHERE id = '{id}'");
    stack.database.execute(&expire).await;
    let waiting = "SELECT count(*) FROM access_changes";
    stack.database.wait_for_number(waiting, 0).await;
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_uses_are_counted_in_batches() {
    let stack = Stack::start().await;
    let api = stack.api();
    let (id, token) = new_token(&api, json!({"name": "busy", "scopes": ["runs:read"]})).await;
    let writes = format!("SELECT xmin::text FROM tokens WHERE id = '{id}'");
    let before = stack.database.query_strings(&writes).await;
    for _ in 0..20 {
        assert_eq!(status_with(&api, &token, "/v1/runs").await, 200);
    }
    let counted = format!("SELECT uses FROM tokens WHERE id = '{id}' AND last_used_at IS NOT NULL");
    stack
        .database
        .wait_for_number(&format!("SELECT coalesce(({counted}), 0)"), 20)
        .await;
    let after = stack.database.query_strings(&writes).await;
    assert_ne!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_creates_lists_and_revokes_tokens() {
    let stack = Stack::start().await;
    let api = stack.api();
    let make = [
        "token",
        "create",
        "cron",
        "--scope",
        "runs:read",
        "--label",
        "team=search",
    ];
    let (succeeded, token) = operator(&stack, &make).await;
    assert!(succeeded, "{token}");
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 200);
    let (_, list) = operator(&stack, &["token", "list", "--json"]).await;
    let cron = list
        .lines()
        .find(|line| line.contains("cron"))
        .expect("listed");
    let cron: Value = serde_json::from_str(cron).expect("JSON");
    assert_eq!(cron["labels"], json!({"team": "search"}));
    let id = cron["id"].as_str().expect("an id");
    let (succeeded, output) = operator(&stack, &["token", "revoke", id]).await;
    assert!(succeeded, "{output}");
    // The command line changes only Postgres; the gateway learns it from there.
    runcast_tests::eventually::eventually_within(
        super::fixtures::AT_ONCE * 5,
        "the token is refused",
        async || match status_with(&api, &token, "/v1/runs").await {
            401 => Ok(()),
            other => Err(other.to_string()),
        },
    )
    .await;
    let (succeeded, output) = operator(&stack, &["token", "revoke", id]).await;
    assert!(!succeeded && output.contains("token list"), "{output}");
    let response = send(api.request(Method::DELETE, "/v1/tokens/nonsense")).await;
    problem(response, StatusCode::NOT_FOUND).await;
}
