//! A cached credential in Redis is never older than the last change, even when replies arrive late.

use redis::AsyncCommands as _;
use reqwest::Method;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::stack::Stack;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::fixtures::{ask, new_token, revoke, second_gateway, sign_in, status_with, user};

/// A gateway has read that a token is valid. While the reply is on its way, the token is revoked
/// elsewhere. The gateway must not cache the old state, and the next request is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lookup_does_not_cache_a_revoked_token() {
    let stack = Stack::start().await;
    let api = stack.api();
    let chaos = ChaosProxy::start(stack.database_port()).await;
    let url = stack.database_url(chaos.port());
    let slow = second_gateway(&stack, &[("DATABASE_URL", &url)]).await;
    let mut redis = stack.redis.connection().await;
    for round in 0..3 {
        let body = json!({"name": format!("overtaken {round}"), "scopes": ["runs:read"]});
        let (id, token) = new_token(&api, body).await;
        let hash: [u8; 32] = Sha256::digest(&token).into();
        let key = stack.keys().token(&hash);
        // Of all queries, only the lookup of this token contains its hash.
        chaos.hold_reply(&hash);
        let reading = tokio::spawn({
            let (api, token) = (slow.api.clone(), token.clone());
            async move { status_with(&api, &token, "/v1/session").await }
        });
        // Postgres has replied that it is valid, but the gateway has not received that.
        chaos.wait_for_held_reply().await;
        let lease: String = redis.get(&key).await.expect("a lease");
        assert!(lease.starts_with('?'), "{lease}");
        revoke(&api, &id).await;
        let lease: Option<String> = redis.get(&key).await.expect("a response");
        assert_eq!(lease, None, "removed before the response to the revocation");
        assert!(!reading.is_finished());
        chaos.release_reply();
        assert_eq!(
            reading.await.expect("a response"),
            200,
            "the lookup was before the revocation"
        );
        let copy: Option<String> = redis.get(&key).await.expect("a response");
        assert_eq!(copy, None);
        for api in [&slow.api, &api] {
            assert_eq!(status_with(api, &token, "/v1/session").await, 401);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_during_redis_outage_holds_after_it() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let body = json!({"name": "away", "scopes": ["runs:read"]});
    let (id, token) = new_token(&api, body).await;
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    assert_eq!(status_with(&api, &token, "/v1/runs").await, 200);
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
    // Redis comes back with its old data.
    stack.redis.enable_append_only_file().await;
    stack.redis.kill();
    revoke(&api, &id).await;
    let disable = json!({"disabled": true});
    ask(&api, Method::PATCH, "/v1/users/ada", &disable, 200).await;
    for _ in 0..3 {
        assert_eq!(status_with(&api, &token, "/v1/runs").await, 401);
        assert_eq!(ada.status(Method::GET, "/v1/runs").await, 401);
    }
    let waiting = "SELECT count(*) FROM access_changes";
    assert!(stack.database.query_number(waiting).await > 0);
    stack.redis.restart().await;
    stack.database.wait_for_number(waiting, 0).await;
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
