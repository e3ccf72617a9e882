//! While Redis is unreachable each gateway counts on its own, and no request waits for Redis.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use runcast_tests::eventually::eventually;
use runcast_tests::stack::{Service, Stack};

use super::fixtures::{header, list, metric, non_admin, set};

async fn counts_by(stack: &Stack, source: &str) {
    eventually(&format!("{source} counts"), async || {
        let ready = stack.api().get("/readyz").await;
        match ready["limits"] == source {
            true => Ok(()),
            false => Err(ready.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_gateway_counts_locally() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_redis().await;
    set(&mut stack, "read=5/h");
    let url = stack.redis.url(chaos.port());
    stack.set(Service::Gateway, "REDIS_URL", url);
    stack.start_all().await;
    let reader = non_admin(&stack, "runs:read").await;
    let first = list(&reader).await;
    assert!(header(&first, "ratelimit").starts_with("\"read\";r=4;"));
    counts_by(&stack, "redis").await;

    // The worst case: it neither answers nor refuses.
    chaos.half_open();
    for left in [4, 3, 2, 1, 0] {
        let began = Instant::now();
        let answer = list(&reader).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let says = header(&answer, "ratelimit").to_owned();
        assert!(says.starts_with(&format!("\"read\";r={left};")), "{says}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "the request took {took:?}");
    }
    assert_eq!(list(&reader).await.status(), StatusCode::TOO_MANY_REQUESTS);
    counts_by(&stack, "process").await;
    let limited = r#"runcast_limits_limited_total{policy="read",source="process"}"#;
    assert_eq!(metric(&stack, limited).await, 1);

    chaos.forward();
    chaos.cut();
    counts_by(&stack, "redis").await;
    let answer = list(&reader).await;
    let says = header(&answer, "ratelimit").to_owned();
    assert!(
        says.starts_with("\"read\";r=3;"),
        "Redis knows of two: {says}"
    );

    // A flushed Redis has full quotas again, and nothing else happens.
    let mut connection = stack.redis.connection().await;
    let flushed = redis::cmd("FLUSHALL").query_async(&mut connection).await;
    let () = flushed.expect("Redis forgets everything");
    let answer = list(&reader).await;
    assert!(header(&answer, "ratelimit").starts_with("\"read\";r=4;"));
}
