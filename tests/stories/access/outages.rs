//! Access while Redis or Postgres is unreachable.

use redis::AsyncCommands as _;
use reqwest::{Method, StatusCode};
use runcast_tests::api::{problem, send};
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

use super::fixtures::{
    USER_PASSWORD, json_of, make_viewer, sign_in, status_with, try_sign_in, user,
};

async fn readiness(stack: &Stack) -> Value {
    let api = stack.api();
    let response = send(api.anonymous(Method::GET, "/readyz")).await;
    json_of(response, StatusCode::OK).await["access"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_redis_keeps_sessions() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    for _ in 0..3 {
        assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
        assert_eq!(status_with(&api, stack.token(), "/v1/runs").await, 200);
        let mut redis = stack.redis.connection().await;
        let flushed: String = redis::cmd("FLUSHALL")
            .query_async(&mut redis)
            .await
            .expect("OK");
        assert_eq!(flushed, "OK");
    }
}

/// Rights are looked up again as they are now, not as they were cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_redis_reloads_current_permissions() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["operator"]).await;
    let ada = sign_in(&api, "ada").await;
    let run = json!({"name": "x"});
    let create = async || {
        send(ada.request(Method::POST, "/v1/runs").json(&run))
            .await
            .status()
    };
    let flush = async || {
        let mut redis = stack.redis.connection().await;
        let flushed = redis::cmd("FLUSHALL").query_async(&mut redis).await;
        let () = flushed.expect("Redis forgets everything");
    };
    assert_eq!(create().await, 201);
    flush().await;
    assert_eq!(create().await, 201);
    make_viewer(&api, "ada").await;
    for _ in 0..3 {
        flush().await;
        assert_eq!(create().await, 403);
        assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
    }
    assert_eq!(ada.status(Method::DELETE, "/v1/session").await, 204);
    flush().await;
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_sessions_and_sign_in_work() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
    assert_eq!(readiness(&stack).await["source"], "redis");
    stack.redis.kill();
    assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
    let late = sign_in(&api, "ada").await;
    assert_eq!(late.status(Method::GET, "/v1/runs").await, 200);
    assert_eq!(late.status(Method::DELETE, "/v1/session").await, 204);
    assert_eq!(late.status(Method::GET, "/v1/runs").await, 401);
    let received = readiness(&stack).await;
    assert_eq!(received["source"], "postgres", "{received}");
    assert!(received["from_postgres"].as_u64() > Some(0), "{received}");
    stack.redis.restart().await;
    runcast_tests::eventually::eventually("the cache is used again", async || {
        assert_eq!(ada.status(Method::GET, "/v1/runs").await, 200);
        let received = readiness(&stack).await;
        match received["source"] == "redis" {
            true => Ok(()),
            false => Err(received.to_string()),
        }
    })
    .await;
}

/// Makes all cached tokens and permissions overdue for a refresh.
async fn grow_old(stack: &Stack) {
    let mut redis = stack.redis.connection().await;
    let pattern = format!("{}auth:*", stack.keys().prefix());
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let copy: String = redis.get(&key).await.expect("a copy");
        let mut copy: Value = serde_json::from_str(&copy).expect("JSON");
        copy["fresh_until"] = json!(0);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(copy.to_string()).arg("KEEPTTL");
        let done: String = set.query_async(&mut redis).await.expect("OK");
        assert_eq!(done, "OK");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_cached_credentials_work_and_sign_in_fails() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_postgres().await;
    let url = stack.database_url(chaos.port());
    stack.set(Service::Gateway, "DATABASE_URL", url);
    stack.start_all().await;
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    assert_eq!(ada.status(Method::GET, "/v1/session").await, 200);
    assert_eq!(status_with(&api, stack.token(), "/v1/session").await, 200);
    chaos.refuse();
    for _ in 0..3 {
        let who = ada.get("/v1/session").await;
        assert_eq!(who["name"], "ada");
        assert_eq!(status_with(&api, stack.token(), "/v1/session").await, 200);
    }
    // Overdue cache entries are used until Postgres answers again.
    grow_old(&stack).await;
    assert_eq!(ada.get("/v1/session").await["name"], "ada");
    assert_eq!(status_with(&api, stack.token(), "/v1/session").await, 200);
    let body = json!({"user": "ada", "password": USER_PASSWORD});
    let response = try_sign_in(&api, &body).await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    let received = readiness(&stack).await;
    assert!(received["from_redis"].as_u64() > Some(0), "{received}");
    chaos.forward();
    runcast_tests::eventually::eventually("sign-in works again", async || {
        match try_sign_in(&api, &body).await.status() {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}
