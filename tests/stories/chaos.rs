//! The proxy of the harness works: a fault that does not happen would make its story pass.

use std::time::{Duration, Instant};

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::eventually::eventually;
use runcast_tests::redis_server::{RedisServer, connect};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than any reply takes, but short.
const SHORT_WAIT: Duration = Duration::from_millis(300);

async fn set(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<()> {
    redis::cmd("SET")
        .arg(key)
        .arg("1")
        .query_async(connection)
        .await
}

async fn has(connection: &mut MultiplexedConnection, key: &str) -> bool {
    let mut command = redis::cmd("EXISTS");
    let count: u64 = command
        .arg(key)
        .query_async(connection)
        .await
        .expect("a response");
    count == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_injects_each_fault() {
    let folder = TempDir::with_prefix("runcast-chaos-").expect("a folder");
    let server = RedisServer::start(folder.path()).await;
    let mut direct = server.connection().await;
    let chaos = ChaosProxy::start(server.port()).await;
    let through = server.url(chaos.port());

    let mut client = connect(&through).await;
    set(&mut client, "forwarded").await.expect("it forwards");

    chaos.drop_replies(1, b"lost-answer");
    set(&mut client, "lost-answer")
        .await
        .expect_err("the reply is lost");
    eventually("the request was executed", async || {
        let there = has(&mut direct, "lost-answer").await.then_some(());
        there.ok_or_else(|| "the request was not executed".to_owned())
    })
    .await;
    let mut client = connect(&through).await;
    set(&mut client, "lost-answer")
        .await
        .expect("the fault was for one request");
    chaos.wait_for_hits(1).await;

    chaos.block_requests(b"held");
    let silence = timeout(SHORT_WAIT, set(&mut client, "held")).await;
    assert!(
        silence.is_err(),
        "a blocked request gets no reply: {silence:?}"
    );
    assert!(
        !has(&mut direct, "held").await,
        "a blocked request does not arrive"
    );

    let mut old = connect(&through).await;
    chaos.cut();
    set(&mut old, "cut")
        .await
        .expect_err("the connection is cut");
    let mut old = connect(&through).await;
    set(&mut old, "cut").await.expect("a new connection works");

    chaos.half_open();
    chaos.forward();
    let silence = timeout(SHORT_WAIT, set(&mut old, "half-open")).await;
    assert!(silence.is_err(), "an old connection is silent: {silence:?}");
    assert!(!has(&mut direct, "half-open").await);
    let mut client = connect(&through).await;
    set(&mut client, "half-open")
        .await
        .expect("a new connection works");

    chaos.delay(SHORT_WAIT);
    let start = Instant::now();
    set(&mut client, "delayed")
        .await
        .expect("the reply is late");
    assert!(start.elapsed() >= SHORT_WAIT);

    chaos.refuse();
    set(&mut client, "refused")
        .await
        .expect_err("all connections are cut");
    let address = redis::Client::open(through).expect("a URL");
    let refused = address.get_multiplexed_async_connection().await;
    assert!(refused.is_err(), "no new connections");
}
