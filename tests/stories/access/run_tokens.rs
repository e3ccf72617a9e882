//! Tokens of runs: they come from the token or user that creates or joins the run, can do what that
//! can at the moment, and end with it and with the run.

use redis::AsyncCommands as _;
use reqwest::{Method, StatusCode};
use runcast_common::protocol::keys::Keys;
use runcast_tests::api::{Api, CreatedRun, problem, send};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually_within};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::fixtures::{
    AT_ONCE, ask, make_viewer, new_token, operator, revoke, second_gateway, sign_in, sign_in_with,
    status_with, user,
};
use super::open_streams::{ENDED_REASON, Open};

const NOTHING: &str = "SELECT count(*) FROM access_changes";

/// A client with a new token of these scopes, and the id of the token.
async fn client(api: &Api, scopes: &[&str]) -> (String, Api) {
    let (id, token) = new_token(api, json!({"name": "service", "scopes": scopes})).await;
    (id, Api::new(api.base(), &token))
}

async fn publisher(api: &Api) -> (String, Api) {
    client(api, &["runs:publish", "runs:read"]).await
}

/// The statuses of reading the run and of publishing to it with its token.
async fn may(api: &Api, run: &CreatedRun) -> [u16; 2] {
    let own = Api::new(api.base(), &run.token);
    let events = format!("/v1/runs/{}/events", run.id);
    let request = own
        .request(Method::POST, &events)
        .header("content-type", "text/plain");
    let published = send(request.body("x\n")).await;
    let read = status_with(api, &run.token, &format!("/v1/runs/{}", run.id)).await;
    [read, published.status().as_u16()]
}

/// Joins a run; returns the token that the answer holds.
async fn join(api: &Api, run: Uuid) -> Option<String> {
    let path = format!("/v1/runs/{run}/publish");
    let joined = ask(api, Method::POST, &path, &Value::Null, 200).await;
    joined["token"].as_str().map(str::to_owned)
}

fn key(keys: &Keys, token: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(token).into();
    keys.token(&hash)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_token_ends_with_its_parent_at_all_gateways() {
    let stack = Stack::start().await;
    let (api, other) = (stack.api(), second_gateway(&stack, &[]).await);
    let both = [&api, &other.api];
    // Revoked at one gateway: at once at the other. An open stream of the token of the run ends.
    let (id, service) = publisher(&api).await;
    let run = service.create_run("revoked").await;
    for api in both {
        assert_eq!(may(api, &run).await, [200, 200]);
    }
    let path = format!("/v1/runs/{}/stream", run.id);
    let there = Api::new(other.api.base(), &run.token);
    let stream = Open::new(there.request(Method::GET, &path), &path).await;
    revoke(&api, &id).await;
    for api in both {
        assert_eq!(may(api, &run).await, [401, 401]);
    }
    stream.ends(AT_ONCE, ENDED_REASON).await;
    let read = api.anonymous(Method::GET, "/v1/session");
    let detail = problem(
        send(read.bearer_auth(&run.token)).await,
        StatusCode::UNAUTHORIZED,
    )
    .await;
    assert!(detail.contains("token of a run comes from"), "{detail}");
    // Expired, revoked or deleted by other programs: once Postgres has notified the gateways.
    for change in [
        "UPDATE tokens SET expires_at = now() WHERE id = ",
        "UPDATE tokens SET revoked_at = now() WHERE id = ",
        "DELETE FROM tokens WHERE id = ",
    ] {
        let (id, service) = publisher(&api).await;
        let run = service.create_run("changed").await;
        for api in both {
            assert_eq!(may(api, &run).await, [200, 200]);
        }
        stack.database.execute(&format!("{change}'{id}'")).await;
        for api in both {
            eventually_within(WAIT_DEADLINE, change, async || match may(api, &run).await {
                [401, 401] => Ok(()),
                seen => Err(format!("{seen:?}")),
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_token_ends_with_the_user_behind_it() {
    let stack = Stack::start().await;
    let api = stack.api();
    for (name, by_token) in [("ada", false), ("bob", true)] {
        user(&stack, name, &["operator"]).await;
        let browser = sign_in(&api, name).await;
        let created = match by_token {
            false => {
                let body = json!({"name": "by a session"});
                browser.send(Method::POST, "/v1/runs", &body, 201).await
            }
            true => {
                let body = json!({"name": "script", "scopes": ["runs:publish", "runs:read"]});
                let token = browser.send(Method::POST, "/v1/tokens", &body, 201).await;
                let script = Api::new(api.base(), token["token"].as_str().expect("a token"));
                ask(&script, Method::POST, "/v1/runs", &json!({}), 201).await
            }
        };
        let run = CreatedRun {
            id: created["run"]["id"]
                .as_str()
                .expect("an id")
                .parse()
                .expect("an id"),
            token: created["token"].as_str().expect("a token").to_owned(),
            redis_url: String::new(),
        };
        assert_eq!(may(&api, &run).await, [200, 200], "{name}");
        // The run keeps its token when the session ends: it comes from the user.
        let path = format!("/v1/users/{name}");
        let sessions = format!("{path}/sessions");
        ask(&api, Method::DELETE, &sessions, &Value::Null, 204).await;
        assert_eq!(may(&api, &run).await, [200, 200], "{name}");
        for (disabled, expected) in [(true, [401, 401]), (false, [200, 200])] {
            ask(
                &api,
                Method::PATCH,
                &path,
                &json!({"disabled": disabled}),
                200,
            )
            .await;
            assert_eq!(may(&api, &run).await, expected, "{name}");
        }
        make_viewer(&api, name).await;
        assert_eq!(may(&api, &run).await, [200, 403], "{name}");
        let role = format!("{path}/roles/viewer");
        ask(&api, Method::DELETE, &role, &Value::Null, 204).await;
        assert_eq!(may(&api, &run).await, [403, 403], "{name}");
        stack
            .database
            .execute(&format!("DELETE FROM users WHERE name = '{name}'"))
            .await;
        stack.database.wait_for_number(NOTHING, 0).await;
        assert_eq!(may(&api, &run).await, [401, 401], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_token_never_exceeds_its_parent() {
    let stack = Stack::start().await;
    let api = stack.api();
    let (id, service) = client(&api, &["runs:publish"]).await;
    let run = service.create(&json!({"labels": {"team": "search"}})).await;
    assert_eq!(may(&api, &run).await, [403, 200]);
    for (columns, expected) in [
        ("scopes = '{runs:read}'", [200, 403]),
        ("scopes = '{runs:publish,runs:read}'", [200, 200]),
        (r#"labels = '{"team":"ads"}'"#, [403, 403]),
        (r#"labels = '{"team":"search"}'"#, [200, 200]),
        ("labels = NULL, scopes = '{admin}'", [200, 200]),
    ] {
        let change = format!("UPDATE tokens SET {columns} WHERE id = '{id}'");
        stack.database.execute(&change).await;
        stack.database.wait_for_number(NOTHING, 0).await;
        assert_eq!(may(&api, &run).await, expected, "{columns}");
    }
    // Even of an administrator it is for its run alone, and makes nothing.
    let other = api.create_run("other").await.id;
    let own = Api::new(api.base(), &run.token);
    for (method, path, body) in [
        (Method::POST, "/v1/runs", json!({"name": "x"})),
        (
            Method::POST,
            "/v1/runs",
            json!({"labels": {"team": "search"}}),
        ),
        (
            Method::POST,
            "/v1/tokens",
            json!({"name": "x", "scopes": ["runs:read"]}),
        ),
        (Method::GET, "/v1/tokens", Value::Null),
        (Method::GET, "/v1/users", Value::Null),
    ] {
        ask(&own, method, path, &body, 403).await;
    }
    for path in [
        format!("/v1/runs/{other}/publish"),
        format!("/v1/runs/{}/control", run.id),
    ] {
        ask(&own, Method::POST, &path, &json!({"command": "pause"}), 403).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_asks_again_gets_the_same_token() {
    let stack = Stack::start().await;
    let api = stack.api();
    let (_, service) = publisher(&api).await;
    let (_, other) = publisher(&api).await;
    let mut created = Vec::new();
    for expected in [201, 200] {
        let request = service.request(Method::POST, "/v1/runs").json(&json!({}));
        let response = send(request.header("idempotency-key", "one")).await;
        assert_eq!(response.status().as_u16(), expected);
        created.push(response.json::<Value>().await.expect("JSON"));
    }
    let run: Uuid = created[0]["run"]["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");
    let token = created[0]["token"].as_str().expect("a token").to_owned();
    assert_eq!(created[1]["token"], token);
    for _ in 0..10 {
        assert_eq!(join(&service, run).await.as_ref(), Some(&token));
    }
    let theirs = join(&other, run).await.expect("a token");
    assert_ne!(theirs, token);
    // A token of the run gets itself, and a session that was opened with it none.
    let own = Api::new(api.base(), &token);
    assert_eq!(join(&own, run).await.as_ref(), Some(&token));
    let browser = sign_in_with(&api, &json!({"token": token})).await;
    let path = format!("/v1/runs/{run}/publish");
    let joined = browser.send(Method::POST, &path, &Value::Null, 200).await;
    assert!(joined.get("token").is_none(), "{joined}");
    let rows = format!("SELECT count(*) FROM tokens WHERE run_id = '{run}'");
    assert_eq!(stack.database.query_number(&rows).await, 2);
    let entries = format!("SELECT count(*) FROM audit_log WHERE details->>'run' = '{run}'");
    assert_eq!(stack.database.query_number(&entries).await, 2);
    // After all were revoked, those that come from valid tokens get new ones, once.
    let path = format!("/v1/tokens?run={run}");
    let revoked = ask(&api, Method::DELETE, &path, &Value::Null, 200).await;
    assert_eq!(revoked["revoked"], 2);
    for gone in [&token, &theirs] {
        assert_eq!(status_with(&api, gone, "/v1/session").await, 401);
    }
    let next = join(&service, run).await.expect("a token");
    assert_ne!(next, token);
    assert_eq!(join(&service, run).await, Some(next.clone()));
    assert_eq!(status_with(&api, &next, "/v1/session").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_token_ends_some_time_after_the_run_was_sealed() {
    let mut stack = Stack::start().await;
    let (api, database) = (stack.api(), stack.database.clone());
    let (_, service) = publisher(&api).await;
    let run = service.create_run("sealed").await;
    let arguments = ["wrap", "--run", &run.id.to_string(), "--", "true"].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let token = ("RUNCAST_TOKEN", run.token.as_str());
    let mut wrap = stack.runcast(&arguments, &[token]);
    assert!(
        wrap.wait_exit(WAIT_DEADLINE).await.success(),
        "{}",
        wrap.logs()
    );
    database.wait_sealed(run.id).await;
    let mut redis = stack.redis.connection().await;
    let key = key(stack.keys(), &run.token);
    let status = async || status_with(&api, &run.token, "/v1/session").await;
    // A gateway reads it again before it ends, and its copy expires with it.
    let _: u64 = redis.del(&key).await.expect("a response");
    assert_eq!(status().await, 200, "a late event may come");
    let copy: String = redis.get(&key).await.expect("a copy");
    let copy: Value = serde_json::from_str(&copy).expect("JSON");
    let fresh_until = copy["fresh_until"].as_i64().expect("a time");
    let now = database
        .query_number("SELECT extract(epoch FROM now())::bigint")
        .await;
    assert!(fresh_until - now <= 300, "{fresh_until} at {now}");
    let left: i64 = redis.pttl(&key).await.expect("a time");
    assert!((60_000..=900_000).contains(&left), "{left}");
    // Sixteen minutes later.
    let of_run = format!("WHERE id = '{}'", run.id);
    let later = async |of: &str| {
        let back = "now() - interval '16 min'";
        let sealed = format!("UPDATE runs SET sealed_at = {back} {of}");
        let renewed = format!(
            "UPDATE tokens SET renewed_at = {back} WHERE run_id = '{}'",
            run.id
        );
        database.execute(&sealed).await;
        database.execute(&renewed).await;
        database.wait_for_number(NOTHING, 0).await;
    };
    later(&of_run).await;
    assert_eq!(status().await, 401);
    // What resends a spool, or runs again, joins with the token that the run came from.
    assert_eq!(join(&service, run.id).await.as_ref(), Some(&run.token));
    assert_eq!(status().await, 200);
    // A run that is open again has its token.
    later(&of_run).await;
    assert_eq!(status().await, 401);
    database
        .execute(&format!("UPDATE runs SET sealed_at = NULL {of_run}"))
        .await;
    let _: u64 = redis.del(&key).await.expect("a response");
    assert_eq!(status().await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_run_are_listed_and_revoked_by_their_parents() {
    let stack = Stack::start().await;
    let api = stack.api();
    let (id, service) = publisher(&api).await;
    let (_, other) = publisher(&api).await;
    user(&stack, "ada", &["operator"]).await;
    let ada = sign_in(&api, "ada").await;
    let run = service.create_run("listed").await;
    join(&other, run.id).await;
    let body = json!({"name": "hers", "scopes": ["runs:publish"]});
    let hers = ada.send(Method::POST, "/v1/tokens", &body, 201).await;
    let hers = Api::new(api.base(), hers["token"].as_str().expect("a token"));
    join(&hers, run.id).await;
    let path = format!("/v1/tokens?run={}", run.id);
    let count = |list: &Value| list["tokens"].as_array().map(Vec::len);
    let own = service.get(&path).await;
    assert_eq!(count(&own), Some(1), "{own}");
    let token = &own["tokens"][0];
    assert_eq!(
        (&token["parent"], &token["active"]),
        (&json!(id), &json!(true))
    );
    assert_eq!(token["run_id"], run.id.to_string());
    assert!(!own.to_string().contains(&run.token));
    assert_eq!(count(&api.get(&path).await), Some(3));
    assert_eq!(count(&ada.get(&path).await), Some(1), "of her token");
    assert_eq!(
        count(&ada.get("/v1/tokens").await),
        Some(1),
        "none of a run"
    );
    let (_, stranger) = publisher(&api).await;
    assert_eq!(count(&stranger.get(&path).await), Some(0));
    let (_, table) = operator(&stack, &["token", "list", "--run", &run.id.to_string()]).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    // Each revokes its own; the token itself as well.
    for (who, expected) in [(&stranger, 0), (&other, 1), (&other, 0), (&service, 1)] {
        let revoked = ask(who, Method::DELETE, &path, &Value::Null, 200).await;
        assert_eq!(revoked["revoked"], expected);
    }
    assert_eq!(may(&api, &run).await, [401, 401]);
    let revoked = ada.send(Method::DELETE, &path, &Value::Null, 200).await;
    assert_eq!(revoked["revoked"], 1);
    let next = join(&service, run.id).await.expect("a token");
    let itself = Api::new(api.base(), &next);
    let revoked = ask(&itself, Method::DELETE, &path, &Value::Null, 200).await;
    assert_eq!(revoked["revoked"], 1);
    // One alone, by the token that it comes from.
    let next = join(&service, run.id).await.expect("a token");
    let newest = service.get(&path).await["tokens"][0]["id"].clone();
    let one = format!("/v1/tokens/{}", newest.as_str().expect("an id"));
    ask(&stranger, Method::DELETE, &one, &Value::Null, 404).await;
    ask(&service, Method::DELETE, &one, &Value::Null, 204).await;
    assert_eq!(status_with(&api, &next, "/v1/session").await, 401);
    // The list says which have ended with their parent.
    join(&service, run.id).await;
    let active = async || api.get(&path).await["tokens"][0]["active"].clone();
    assert_eq!(active().await, true);
    revoke(&api, &id).await;
    assert_eq!(active().await, false);
    let audited = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'token.revoked' AND target = '{}'",
        run.id
    );
    assert_eq!(stack.database.query_number(&audited).await, 4);
    let (succeeded, output) =
        operator(&stack, &["token", "revoke", "--run", &run.id.to_string()]).await;
    assert!(
        succeeded && output.starts_with("1 tokens of run"),
        "{output}"
    );
    for wrong in ["/v1/tokens", "/v1/tokens?run=x"] {
        ask(&api, Method::DELETE, wrong, &Value::Null, 400).await;
    }
    ask(&api, Method::GET, "/v1/tokens?run=x", &Value::Null, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_is_deleted_while_it_is_joined_is_answered_404() {
    let stack = Stack::start().await;
    let api = stack.api();
    let (_, service) = publisher(&api).await;
    let run = api.create_run("gone").await.id;
    let insert = "INSERT ON tokens FOR EACH ROW";
    let barrier = stack.database.barrier("joining", insert, "true").await;
    let request = service.request(Method::POST, &format!("/v1/runs/{run}/publish"));
    let joining = tokio::spawn(send(request));
    barrier.wait_reached().await;
    stack.database.delete(run).await;
    barrier.release().await;
    let answer = joining.await.expect("a response");
    problem(answer, StatusCode::NOT_FOUND).await;
}

/// Tokens that a version before has issued with runs, and what it has copied to Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_copies_of_the_version_before_are_handled() {
    let stack = Stack::start().await;
    let (api, database) = (stack.api(), stack.database.clone());
    let (id, service) = publisher(&api).await;
    let run = service.create_run("old").await;
    let old = format!("rct_{}", "o".repeat(43));
    let insert = format!(
        "INSERT INTO tokens (id, hash, name, scopes, run_id, expires_at)
         VALUES (gen_random_uuid(), sha256('{old}'), 'run', '{{runs:publish,runs:read}}', '{}', now() + interval '7 d')",
        run.id
    );
    database.execute(&insert).await;
    let sealed = format!(
        "UPDATE runs SET sealed_at = now() - interval '1 d' WHERE id = '{}'",
        run.id
    );
    database.execute(&sealed).await;
    let path = format!("/v1/runs/{}", run.id);
    assert_eq!(status_with(&api, &old, &path).await, 200);
    assert_eq!(
        join(&Api::new(api.base(), &old), run.id).await,
        Some(old.clone())
    );
    // It is no parent, and neither is any token of a run.
    for parent in [&run.token, &join(&service, run.id).await.expect("a token")] {
        let insert = format!(
            "DO $$ BEGIN
                 INSERT INTO tokens (id, hash, name, scopes, run_id, parent_id, renewed_at)
                 SELECT gen_random_uuid(), '\\x00', 'x', '{{}}', '{}', id, now() FROM tokens WHERE hash = sha256('{parent}');
                 RAISE 'a token of a run is a parent';
             EXCEPTION WHEN check_violation THEN NULL; END $$",
            run.id
        );
        database.execute(&insert).await;
    }
    // A gateway of the version before copies no parent; this one does not believe the copy.
    let mut redis = stack.redis.connection().await;
    let key = key(stack.keys(), &run.token);
    let copy = json!({"fresh_until": 9_999_999_999_i64, "value": {
        "id": Uuid::now_v7(), "name": "run", "scopes": ["runs:publish", "runs:read"], "run_id": run.id,
        "labels": null, "user_id": null,
    }});
    let copy = copy.to_string();
    let _: () = redis.set_ex(&key, &copy, 3600).await.expect("stored");
    assert_eq!(status_with(&api, &run.token, &path).await, 200);
    let replaced: String = redis.get(&key).await.expect("a copy");
    assert!(
        replaced != copy && replaced.contains("\"of_run\":true"),
        "{replaced}"
    );
    let _: () = redis.set_ex(&key, &copy, 3600).await.expect("stored");
    revoke(&api, &id).await;
    assert_eq!(status_with(&api, &run.token, &path).await, 401);
}
