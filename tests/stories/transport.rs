//! How events leave an agent: through the gateway, to Redis, and over from one to the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use redis::aio::MultiplexedConnection;
use reqwest::{Method, Response, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{CreatedRun, problem, send};
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::database::{assert_each_once, text};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, shell_exit_code};
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A stack whose gateway hands out no address of Redis.
async fn without_redis_for_agents() -> Stack {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Gateway, "RUNCAST_PUBLISH_REDIS_URL", "");
    stack.start_all().await;
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_needs_nothing_but_the_gateway() {
    let mut stack = without_redis_for_agents().await;
    let new = json!({"name": "over http"});
    let request = stack.api().request(Method::POST, "/v1/runs").json(&new);
    let created: Value = send(request).await.json().await.expect("JSON");
    assert_eq!(
        created["redis"],
        Value::Null,
        "no address leaves the server"
    );
    let run: Uuid = created["run"]["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a UUID");

    // It publishes, is alive, and takes commands.
    let script = "seq 5000; echo ready; while :; do sleep 0.05; done";
    let settings = [("REDIS_URL", "redis://127.0.0.1:1")];
    let mut wrap = stack.wrap_with(run, &["sh", "-c", script], &settings);
    wrap.wait_for_line("ready", WAIT_DEADLINE).await;
    eventually("the agent is alive", async || {
        let agents = stack.api().get(&format!("/v1/runs/{run}/agents")).await;
        let is_alive = agents["agents"][0]["health"] == "alive";
        is_alive.then_some(()).ok_or_else(|| agents.to_string())
    })
    .await;
    let path = format!("/v1/runs/{run}/control");
    let cancel = json!({"command": "cancel"});
    let cancelled = send(stack.api().request(Method::POST, &path).json(&cancel)).await;
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 143, "{}", wrap.logs());

    // Everything is stored, once and in order.
    let events = stack.database.wait_sealed(run).await;
    assert_each_once(&events);
    assert_eq!(text(&events, Kind::Output), wrap.stdout());
    assert_eq!(stack.database.run(run).await.status, "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_or_redis_that_restarts_costs_a_pause_and_no_event() {
    let mut stack = without_redis_for_agents().await;
    let run = create(&stack).await;
    let script = "for i in $(seq 120); do echo line $i; sleep 0.05; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    wrap.wait_for_line("line 20", WAIT_DEADLINE).await;
    stack.kill(Service::Gateway);
    wrap.wait_for_line("line 40", WAIT_DEADLINE).await;
    stack.start_service(Service::Gateway).await;
    wrap.wait_for_line("line 60", WAIT_DEADLINE).await;
    stack.redis.restart().await;
    wrap.wait_for_line("line 100", WAIT_DEADLINE).await;
    finish(&stack, run, wrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transports_change_at_random_and_nothing_is_lost_or_doubled() {
    let mut stack = Stack::without_services().await;
    let redis = stack.proxy_redis().await;
    let address = stack.redis.publisher_url(redis.port());
    stack.set(Service::Gateway, "RUNCAST_PUBLISH_REDIS_URL", address);
    stack.start_all().await;
    let gateway_port = stack.api().base().rsplit(':').next().map(str::to_owned);
    let gateway_port = gateway_port.and_then(|port| port.parse().ok());
    let gateway = stack.proxy_port(gateway_port.expect("a port")).await;
    let run = create(&stack).await;

    // 200,000 lines in about half a minute.
    let script =
        "i=0; while [ $i -lt 1000 ]; do seq -f \"line $i.%g\" 200; i=$((i+1)); sleep 0.03; done";
    let url = format!("http://127.0.0.1:{}", gateway.port());
    let settings = [
        ("RUNCAST_URL", url.as_str()),
        ("RUNCAST_TRANSPORT", "auto"),
        ("RUNCAST_LOG", "runcast_publisher=info"),
    ];
    let mut wrap = stack.wrap_with(run, &["bash", "-c", script], &settings);
    let started = Instant::now();
    while wrap.try_wait().is_none() {
        assert!(started.elapsed() < 2 * WAIT_DEADLINE, "{}", wrap.logs());
        disturb(&redis, &gateway).await;
    }
    let changes = count_changes(&wrap);
    assert!(changes >= 50, "{changes} changes\n{}", wrap.logs());
    let output = wrap.stdout();
    assert_eq!(
        output.iter().filter(|byte| **byte == b'\n').count(),
        200_000
    );
    finish(&stack, run, wrap).await;
}

/// Interrupts one of the two ways for a moment, mostly Redis.
async fn disturb(redis: &Arc<ChaosProxy>, gateway: &Arc<ChaosProxy>) {
    let (kind, pause) = (rand::random_range(0..10), rand::rng().random_range(20..120));
    match kind {
        0 => gateway.cut(),
        1 => redis.cut(),
        2 => redis.half_open(),
        _ => redis.refuse(),
    }
    sleep(Duration::from_millis(pause)).await;
    redis.forward();
    gateway.forward();
    // Until Redis is used again.
    sleep(Duration::from_millis(rand::rng().random_range(250..500))).await;
}

/// How often the agent has changed over, by its log.
fn count_changes(wrap: &Process) -> usize {
    let logs = wrap.logs();
    let changes = [
        "publishing through the gateway",
        "publishing to Redis again",
    ];
    changes.iter().map(|text| logs.matches(text).count()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_holds_answers_back_delays_commands_and_nothing_else() {
    let mut stack = without_redis_for_agents().await;
    let port = stack.api().base().rsplit(':').next().map(str::to_owned);
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    let proxy = stack.proxy_port(port).await;
    // Only the long answer has no further parameter.
    proxy.hold_reply(b"variation=0 HTTP");
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let run = create(&stack).await;
    let script = "echo ready; while :; do sleep 0.05; done";
    let mut wrap = stack.wrap_with(run, &["sh", "-c", script], &[("RUNCAST_URL", &url)]);
    wrap.wait_for_line("ready", WAIT_DEADLINE).await;
    stack.database.wait_stored_events(run, 2).await;
    let path = format!("/v1/runs/{run}/control");
    let cancel = json!({"command": "cancel"});
    let sent = send(stack.api().request(Method::POST, &path).json(&cancel)).await;
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 143, "{}", wrap.logs());
    let stderr = String::from_utf8_lossy(&wrap.stderr()).into_owned();
    assert_eq!(stderr.matches("holds answers back").count(), 1, "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_transport_is_named_and_the_command_runs() {
    let mut stack = without_redis_for_agents().await;
    let run = create(&stack).await;
    for (transport, words) in [
        (
            "pigeon",
            "RUNCAST_TRANSPORT is not valid: `pigeon` is no transport: give auto, gateway or redis",
        ),
        ("redis", "the gateway hands out no address of Redis"),
    ] {
        let settings = [("RUNCAST_TRANSPORT", transport)];
        let mut wrap = stack.wrap_with(run, &["echo", "works"], &settings);
        let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
        assert_eq!(code, 0, "{}", wrap.logs());
        assert_eq!(wrap.stdout(), b"works\n");
        let stderr = String::from_utf8_lossy(&wrap.stderr()).into_owned();
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_asks_anew_how_to_publish_when_redis_forgets_its_user() {
    let mut stack = Stack::start().await;
    let run = create(&stack).await;
    let script = "for i in $(seq 120); do echo line $i; sleep 0.05; done";
    let settings = [("RUNCAST_TRANSPORT", "redis")];
    let mut wrap = stack.wrap_with(run, &["sh", "-c", script], &settings);
    wrap.wait_for_line("line 20", WAIT_DEADLINE).await;

    // Its user is gone, and its connections are closed. So is the append script.
    let mut redis = stack.redis.connection().await;
    for user in run_users(&mut redis).await {
        admin(&mut redis, &["ACL", "DELUSER", &user]).await;
    }
    admin(&mut redis, &["SCRIPT", "FLUSH"]).await;
    wrap.wait_for_line("line 60", WAIT_DEADLINE).await;
    // A server that starts again has neither of them, and no data.
    stack.redis.restart().await;
    finish(&stack, run, wrap).await;
}

/// The Redis users of runs.
async fn run_users(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut list = redis::cmd("ACL");
    let users: Vec<String> = list
        .arg("USERS")
        .query_async(redis)
        .await
        .expect("the users");
    users
        .into_iter()
        .filter(|name| name.contains("publisher-"))
        .collect()
}

/// Sends a command that an administrator may send.
async fn admin(redis: &mut MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    let reply: redis::RedisResult<redis::Value> = command.arg(&words[1..]).query_async(redis).await;
    reply.expect("an administrator may do that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_accepts_connections_and_refuses_appends_is_left_alone() {
    let mut stack = Stack::start().await;
    let port = stack.redis.port();
    let mut redis = stack.redis.connection().await;
    let user = [
        "ACL", "SETUSER", "weak", "reset", "on", ">secret", "~*", "&*", "+@all", "-xadd",
    ];
    admin(&mut redis, &user).await;
    let url = format!("redis://weak:secret@127.0.0.1:{port}/0");
    let run = create(&stack).await;
    let script = "for i in $(seq 60); do echo line $i; sleep 0.05; done";
    let settings = [
        ("RUNCAST_TRANSPORT", "auto"),
        ("REDIS_URL", &url),
        ("RUNCAST_LOG", "runcast_publisher=info"),
    ];
    let mut wrap = stack.wrap_with(run, &["sh", "-c", script], &settings);
    wrap.wait_exit(WAIT_DEADLINE).await;
    let changes = count_changes(&wrap);
    assert!((1..=3).contains(&changes), "{changes}\n{}", wrap.logs());
    finish(&stack, run, wrap).await;
}

/// Headers other than those of a publisher.
type Headers<'a> = &'a [(&'static str, &'static str)];

/// One call of a body for `/append`.
fn call(numbers: [u64; 4], field: &str, body: &str) -> String {
    let [base, acked, first, count] = numbers;
    format!(
        "{base} {acked} {first} {count} {field} {}\n{body}",
        body.len()
    )
}

/// Sends a body for `/append`, with other headers than a publisher where they are given.
async fn append(
    stack: &Stack,
    run: &CreatedRun,
    to: Uuid,
    body: &str,
    headers: &[(&'static str, &'static str)],
) -> Response {
    let mut all = BTreeMap::from([
        ("content-type", "application/octet-stream"),
        ("runcast-protocol", "1"),
        ("producer-id", "01938f5e-0000-7000-8000-000000000001"),
        ("producer-epoch", "1"),
    ]);
    all.extend(headers.iter().copied());
    let path = format!("/v1/runs/{to}/append");
    let mut request = stack.api().anonymous(Method::POST, &path);
    for (name, value) in all {
        request = request.header(name, value);
    }
    send(request.bearer_auth(&run.token).body(body.to_owned())).await
}

/// An event line.
const LINE: &str = "{\"kind\":\"log\",\"text\":\"x\"}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_refuses_what_no_publisher_sends() {
    let stack = without_redis_for_agents().await;
    let run = stack.api().create_run("hostile").await;
    let good = call([0, 0, 1, 1], "b", LINE);
    let (beyond, miscounted) = (
        call([0, 0, 1 << 53, 1], "b", LINE),
        call([0, 0, 1, 2], "b", LINE),
    );
    let damaged = call([0, 0, 1, 1], "z", LINE);
    let cases: [(&str, Headers<'_>, &str); 8] = [
        ("", &[], "no call"),
        ("nonsense", &[], "call 1"),
        (&beyond, &[], "below 2^53"),
        (&miscounted, &[], "2 events"),
        (&damaged, &[], "zstd"),
        (&good, &[("producer-id", "me")], "Producer-Id"),
        (&good, &[("producer-epoch", "9007199254740992")], "2^53"),
        (&good, &[("runcast-protocol", "2")], "update the older"),
    ];
    for (body, headers, words) in cases {
        let refused = append(&stack, &run, run.id, body, headers).await;
        let detail = problem(refused, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains(words), "{body:?} {headers:?}: {detail}");
    }
    let plain = [("content-type", "text/plain")];
    let refused = append(&stack, &run, run.id, &good, &plain).await;
    let detail = problem(refused, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    assert!(detail.contains("/events"), "{detail}");

    // What is right is appended, once.
    for _ in 0..2 {
        let answer = append(&stack, &run, run.id, &good, &[]).await;
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["replies"][0]["outcome"], "ok", "{answer}");
        assert_eq!(answer["replies"][0]["detail"], 1, "{answer}");
    }
    stack.database.wait_stored_events(run.id, 1).await;
}

/// Sends a heartbeat of an agent, with the token of a run.
async fn beat(stack: &Stack, run: &CreatedRun, to: Uuid, agent: Uuid) -> Response {
    let heartbeat = json!({
        "agent": agent, "variation": 0, "host": "h", "pid": 1, "version": "1", "started": 1,
        "time": 1, "published": 0, "unstored": 0,
    });
    let path = format!("/v1/runs/{to}/heartbeats");
    let request = stack.api().anonymous(Method::POST, &path);
    let request = request
        .header("runcast-protocol", "1")
        .bearer_auth(&run.token);
    send(request.json(&heartbeat)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_reaches_neither_runs_nor_agents_of_others() {
    let stack = without_redis_for_agents().await;
    let run = stack.api().create_run("hostile").await;
    let other = stack.api().create_run("another").await;
    let good = call([0, 0, 1, 1], "b", LINE);
    let theirs = append(&stack, &run, other.id, &good, &[]).await;
    problem(theirs, StatusCode::FORBIDDEN).await;
    let agent = Uuid::now_v7();
    let alive = beat(&stack, &other, other.id, agent).await;
    assert_eq!(alive.status(), StatusCode::NO_CONTENT);
    let stolen = beat(&stack, &run, run.id, agent).await;
    problem(stolen, StatusCode::CONFLICT).await;
    let foreign = beat(&stack, &run, other.id, Uuid::now_v7()).await;
    problem(foreign, StatusCode::FORBIDDEN).await;
    let path = format!("/v1/runs/{}/notices?producer={agent}", other.id);
    let request = stack.api().anonymous(Method::GET, &path);
    let request = request
        .header("runcast-protocol", "1")
        .bearer_auth(&run.token);
    problem(send(request).await, StatusCode::FORBIDDEN).await;
}

async fn create(stack: &Stack) -> Uuid {
    stack.api().create_run("transport").await.id
}

/// Waits until the command has ended and its output is stored, once and in order.
async fn finish(stack: &Stack, run: Uuid, mut wrap: Process) {
    let code = shell_exit_code(wrap.wait_exit(2 * WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", wrap.logs());
    let events = stack.database.wait_sealed(run).await;
    assert_each_once(&events);
    let stored = text(&events, Kind::Output);
    assert!(
        stored == wrap.stdout(),
        "stored as printed\n{}",
        String::from_utf8_lossy(&wrap.stderr())
    );
    assert!(text(&events, Kind::Gap).is_empty(), "nothing was dropped");
}
