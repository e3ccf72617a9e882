//! A copy in Redis is never older than the last change, whatever comes late.

use std::time::Duration;

use redis::AsyncCommands as _;
use reqwest::Method;
use runcast_tests::chaos::Chaos;
use runcast_tests::eventually::eventually;
use runcast_tests::stack::Stack;
use serde_json::json;

use super::people::{ask, new_token, revoke, second, sign_in, status_with, user};

/// How much later a gateway that is to be overtaken hears from Postgres: once that the connection is well, then a token.
const LATE: Duration = Duration::from_secs(3);

/// A gateway has read that a token is valid, and while the answer is on its way the token is revoked elsewhere: it
/// leaves no copy. Once only: looks of its own that are too late for it cost the gateway its connections to Postgres.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_was_overtaken_by_a_revocation_leaves_no_copy() {
    let stack = Stack::start().await;
    let api = stack.api();
    let chaos = Chaos::before(stack.database_port()).await;
    let url = stack.database_url(chaos.port());
    let slow = second(&stack, &[("DATABASE_URL", &url)]).await;
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}auth:token:*", stack.keys().prefix());
    // It has a connection, and Postgres knows the statement.
    let unknown = format!("rct_{}", "x".repeat(43));
    assert_eq!(status_with(&slow.api, &unknown, "/v1/session").await, 401);
    let body = json!({"name": "overtaken", "scopes": ["runs:read"]});
    let (id, token) = new_token(&api, body).await;
    let known: Vec<String> = redis.keys(&pattern).await.expect("keys");
    let now = stack.database.ask("SELECT now()::text").await;
    chaos.delay(LATE);
    let reading = tokio::spawn({
        let (api, token) = (slow.api.clone(), token.clone());
        async move { status_with(&api, &token, "/v1/session").await }
    });
    // Its lease stands there: it reads Postgres, or has done so.
    let key = eventually("the slow gateway looks", async || {
        let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
        let new = keys.into_iter().find(|key| !known.contains(key));
        new.ok_or_else(|| "no lease".to_owned())
    })
    .await;
    let lease: String = redis.get(&key).await.expect("a lease");
    assert!(lease.starts_with('?'), "{lease}");
    // Postgres has said that it is valid, and nobody has heard it.
    let read = format!(
            "SELECT least(count(*), 1) FROM pg_stat_activity WHERE datname = current_database()
                AND query LIKE 'SELECT id, name, scopes%' AND state = 'idle' AND query_start > '{}'",
            now[0]
        );
    stack.database.comes_to(&read, 1).await;
    revoke(&api, &id).await;
    let status = reading.await.expect("an answer");
    // As a rule 200: it had read before. A connection that met the statement for the first time has only been told what it
    // answers by then, and asks once more, later than the revocation, or too late. It leaves no copy in any case.
    assert!([200, 401, 503].contains(&status), "{status}");
    chaos.forward();
    let copy: Option<String> = redis.get(&key).await.expect("an answer");
    assert_eq!(copy, None);
    for api in [&api, &slow.api] {
        assert_eq!(status_with(api, &token, "/v1/session").await, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_while_redis_is_away_is_refused_when_it_is_back() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let body = json!({"name": "away", "scopes": ["runs:read"]});
    let (id, token) = new_token(&api, body).await;
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 200);
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
    // Redis comes back with what it held.
    stack.redis.persist().await;
    stack.redis.kill();
    revoke(&api, &id).await;
    let disable = json!({"disabled": true});
    ask(&api, Method::PATCH, "/v1/users/ada", &disable, 200).await;
    for _ in 0..3 {
        assert_eq!(status_with(&api, &token, "/v1/runs").await, 401);
        assert_eq!(ada.status(Method::GET, "/v1/runs").await, 401);
    }
    let waiting = "SELECT count(*) FROM access_changes";
    assert!(stack.database.number(waiting).await > 0);
    stack.redis.restart().await;
    stack.database.comes_to(waiting, 0).await;
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 401);
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 401);
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}auth:token:*", stack.keys().prefix());
    let copies: Vec<String> = redis.keys(&pattern).await.expect("keys");
    for key in copies {
        let copy: String = redis.get(&key).await.expect("a copy");
        assert!(!copy.contains(&id), "{copy}");
    }
}
