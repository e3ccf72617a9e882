//! The audit log records all changes of access and of runs, webhooks and jobs, commands, exports
//! and, if that is set, reads: by which user, from which address, and without secrets or output.

use std::net::Ipv4Addr;

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::stack::{Service, Stack};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_records_the_address_of_the_client() {
    let mut stack = Stack::without_services().await;
    let proxies = "127.0.0.1".to_owned();
    stack.set(Service::Gateway, "RUNCAST_TRUSTED_PROXIES", proxies);
    stack.start_service(Service::Gateway).await;
    let api = stack.api();
    let from = async |method: Method, path: &str, body: &Value| -> Value {
        let request = api.request(method, path).json(body);
        let response = send(request.header("x-forwarded-for", "192.0.2.7")).await;
        assert!(response.status().is_success(), "{path}: {response:?}");
        let text = response.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_default()
    };
    let url = "https://hooks.example.com/services/a-secret-path";
    let hook = json!({"url": url, "on": ["failed"]});
    let hook = from(Method::POST, "/v1/webhooks", &hook).await;
    let hook = format!("/v1/webhooks/{}", hook["id"].as_str().expect("an id"));
    for command in ["test", "disable", "enable"] {
        let path = format!("{hook}/{command}");
        from(Method::POST, &path, &Value::Null).await;
    }
    from(Method::DELETE, &hook, &Value::Null).await;
    let dead = "SELECT tasks.add_job('story', '{}'::json); UPDATE tasks._private_jobs SET attempts = max_attempts";
    stack.database.execute(dead).await;
    let job = "SELECT min(id)::text FROM tasks._private_jobs";
    let job = stack.database.query_strings(job).await.join("");
    let path = format!("/v1/jobs/{job}/retry");
    from(Method::POST, &path, &Value::Null).await;
    let path = format!("/v1/jobs/{job}");
    from(Method::DELETE, &path, &Value::Null).await;
    let run = from(Method::POST, "/v1/runs", &json!({"name": "audited"})).await;
    let run = run["run"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/runs/{run}");
    from(Method::DELETE, &path, &Value::Null).await;
    let log = api.get("/v1/audit").await;
    let entries = log["entries"].as_array().expect("a list");
    let of_address: Vec<&str> = entries
        .iter()
        .filter(|entry| entry["address"] == "192.0.2.7")
        .filter_map(|entry| entry["action"].as_str())
        .collect();
    assert_eq!(
        of_address,
        [
            "run.deleted",
            "token.created",
            "run.created",
            "job.dropped",
            "job.retried",
            "webhook.removed",
            "webhook.enabled",
            "webhook.disabled",
            "webhook.tested",
            "webhook.created",
        ]
    );
    assert!(!log.to_string().contains("a-secret-path"), "{log}");
    // What an operator does has no address.
    let folder = stack.folder().join("export").display().to_string();
    let mut export = stack
        .export_spec(&["--parquet", &folder])
        .start(stack.folder());
    assert!(export.wait_exit(WAIT_DEADLINE).await.success());
    let log = api.get("/v1/audit?action=runs.exported").await;
    assert_eq!(log["entries"][0]["actor_name"], "runcast-export", "{log}");
    assert!(log["entries"][0]["address"].is_null(), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_is_exported_as_ndjson() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    // More than one page of the export.
    let entries = "INSERT INTO audit_log (actor_name, action, target)
         SELECT 'story', 'story.entry', number::text FROM generate_series(1, 1234) AS number";
    stack.database.execute(entries).await;
    let api = stack.api();
    let lines = async |query: &str| -> Vec<Value> {
        let request = api.request(Method::GET, &format!("/v1/audit{query}"));
        let response = send(request.header("accept", "application/x-ndjson")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let text = response.text().await.expect("a body");
        let parse = |line: &str| serde_json::from_str(line).expect("JSON");
        text.lines().map(parse).collect()
    };
    let all = lines("?action=story.").await;
    let targets: Vec<u64> = all
        .iter()
        .filter_map(|entry| entry["target"].as_str()?.parse().ok())
        .collect();
    assert!(targets.iter().copied().eq((1..=1234).rev()), "{targets:?}");
    let before = all[1000]["id"].as_i64().expect("an id");
    let rest = lines(&format!("?action=story.&before={before}")).await;
    assert_eq!(rest.len(), 233);
    assert_eq!(lines("?action=story.&limit=700").await.len(), 700);
    // Each export is recorded.
    assert_eq!(lines("?action=audit.exported").await.len(), 4);
    let bad = api.request(Method::GET, "/v1/audit?limit=many");
    let bad = send(bad.header("accept", "application/x-ndjson")).await;
    problem(bad, StatusCode::BAD_REQUEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_recorded_if_that_is_set() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("read").await.id;
    let mut wrap = stack.wrap(run, &["echo", "what it printed"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    stack.database.wait_sealed(run).await;
    let read_all = async |stack: &Stack| {
        let api = stack.api();
        for path in ["/events", "/text", "/search?q=printed", "/stream"] {
            let path = format!("/v1/runs/{run}{path}");
            let response = send(api.request(Method::GET, &path)).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        }
        let path = format!("/v1/watch?run={run}");
        assert!(
            send(api.request(Method::GET, &path))
                .await
                .status()
                .is_success()
        );
        // Neither is a read of what the run printed.
        api.run(run).await;
        let unknown = format!("/v1/runs/{}/text", Uuid::now_v7());
        let unknown = send(api.request(Method::GET, &unknown)).await;
        problem(unknown, StatusCode::NOT_FOUND).await;
    };
    let recorded = "SELECT target || ' ' || (details->>'path') || ' ' || address FROM audit_log
                     WHERE action = 'run.read' ORDER BY id";
    read_all(&stack).await;
    assert_eq!(stack.database.query_strings(recorded).await, [""; 0]);
    stack.stop(Service::Gateway).await;
    stack.set(Service::Gateway, "RUNCAST_AUDIT_READS", "on");
    stack.start_service(Service::Gateway).await;
    read_all(&stack).await;
    let address = Ipv4Addr::LOCALHOST;
    let paths = [
        "/v1/runs/{run}/events",
        "/v1/runs/{run}/text",
        "/v1/runs/{run}/search",
        "/v1/runs/{run}/stream",
        "/v1/watch",
    ];
    let expected = paths.map(|path| format!("{run} {path} {address}"));
    assert_eq!(stack.database.query_strings(recorded).await, expected);
    // A read that cannot be recorded is refused.
    let refuse = "ALTER TABLE audit_log RENAME TO no_audit_log";
    stack.database.execute(refuse).await;
    let path = format!("/v1/runs/{run}/text");
    let refused = send(stack.api().request(Method::GET, &path)).await;
    assert!(refused.status().is_server_error(), "{refused:?}");
    let body = refused.text().await.expect("a body");
    assert!(!body.contains("what it printed"), "{body}");
    let restore = "ALTER TABLE no_audit_log RENAME TO audit_log";
    stack.database.execute(restore).await;
}
