//! A hostile agent writes to the heartbeats of a partition, and to the keys of agents.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use runcast_common::connect::Redis;
use runcast_common::presence::heartbeat::{self, Agent, Heartbeat};
use runcast_common::protocol::event::{self, Kind};
use runcast_common::protocol::keys::PARTITION_COUNT;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::eventually_within;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use super::fixtures::assert_calm;
use super::hostile_publisher::{Witness, command, counter, log_lines, with_metrics};

/// Silence counts after 10 s of watching and lasts 10 s.
const LOSS_DEADLINE: Duration = Duration::from_secs(60);

/// Sends one heartbeat of an agent of the run.
async fn send_heartbeat(stack: &Stack, run: Uuid, agent: Uuid) {
    let url = stack.redis.url(stack.redis.port()).parse().expect("a URL");
    let shared = Redis::new(&url).expect("a Redis");
    let keys = stack.keys().run(run);
    let about = Agent {
        run,
        variation: 0,
        host: "host".into(),
        pid: 1,
        version: "1".into(),
        started: event::now_ms(),
    };
    let heartbeat = Heartbeat {
        kind: Kind::Heartbeat,
        variation: 0,
        time: event::now_ms(),
        agent,
        published: 2,
        unstored: 0,
        quiet_ms: None,
        rss: None,
        cpu: None,
    };
    heartbeat::send(&shared, stack.keys(), &keys, &about, &heartbeat)
        .await
        .expect("a heartbeat");
}

/// Adds members to a sorted set that are no agents, or whose times are none, and many of them.
async fn add_garbage(redis: &mut MultiplexedConnection, key: &str) {
    let random = || Uuid::new_v4().to_string();
    let huge = "x".repeat(1024 * 1024);
    for (score, member) in [
        ("1", "garbage"),
        ("1", huge.as_str()),
        ("-inf", &random()),
        ("inf", &random()),
        ("-5", &random()),
        ("0.5", &random()),
        ("1e300", &random()),
        ("1", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"),
    ] {
        command(redis, &["ZADD", key, score, member]).await;
    }
    let mut flood = redis::pipe();
    for number in 0..5000 {
        flood
            .cmd("ZADD")
            .arg(key)
            .arg(1)
            .arg(format!("garbage {number}"));
    }
    for _ in 0..500 {
        flood.cmd("ZADD").arg(key).arg(1).arg(random());
    }
    let () = flood.exec_async(redis).await.expect("a flood");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_among_heartbeats_hides_no_lost_agent() {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Worker, "RUNCAST_STALE_AFTER", "8s");
    stack.set(Service::Worker, "RUNCAST_LOST_AFTER", "9s");
    let metrics = with_metrics(&mut stack, Service::Worker);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;

    // An agent that falls silent.
    let run = stack.api().create_run("silent").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    publisher.publish(&numbered_lines("line", 1..=2)).await;
    send_heartbeat(&stack, run.id, publisher.producer).await;

    // Garbage in its partition, in the other sets, and keys of another type elsewhere.
    let mut redis = stack.redis.connection().await;
    let pulses = stack.keys().run(run.id).heartbeat_keys;
    for key in [&pulses.last_heartbeats, &pulses.returned] {
        add_garbage(&mut redis, key).await;
    }
    command(
        &mut redis,
        &["HSET", &pulses.watch, "since", "inf", "last", "x"],
    )
    .await;
    let partition = witness.partition();
    for (offset, key) in [(1, "last"), (2, "returned"), (3, "watch")] {
        let other = stack
            .keys()
            .heartbeat_keys((partition + offset) % PARTITION_COUNT);
        let key = match key {
            "last" => &other.last_heartbeats,
            "returned" => &other.returned,
            _ => &other.watch,
        };
        command(&mut redis, &["SET", key, "x"]).await;
    }

    eventually_within(LOSS_DEADLINE, "the run is lost", async || {
        let described = stack.api().run(run.id).await;
        let status = described["status"].to_string();
        (status == "\"lost\"").then_some(()).ok_or(status)
    })
    .await;
    let skipped = counter(&metrics, "runcast_worker_skipped_heartbeats_total").await;
    assert!(skipped >= 10_000, "{skipped}");
    let lines = log_lines(&stack, Service::Worker, "removed from the heartbeats");
    assert!((1..=2).contains(&lines), "{lines} lines");
    witness.assert_unharmed(&stack).await;
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_agents_may_hold_anything() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("agents").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    publisher.publish(&numbered_lines("line", 1..=2)).await;
    let mut redis = stack.redis.connection().await;
    let meta = stack.keys().run(run.id).meta;
    let huge = "x".repeat(4 * 1024 * 1024);
    let id = run.id.to_string();
    let mut agents = vec![publisher.producer];
    agents.extend(std::iter::repeat_with(Uuid::now_v7).take(5));
    for (index, agent) in agents.iter().enumerate() {
        let (about, pulse) = (stack.keys().agent(*agent), stack.keys().heartbeat(*agent));
        let field = format!("p:{agent}");
        command(&mut redis, &["HSET", &meta, &field, "garbage"]).await;
        let good = [
            "HSET",
            &about,
            "run",
            &id,
            "variation",
            "0",
            "pid",
            "1",
            "version",
            "1",
            "started",
            "1",
        ];
        let describe = |more: &[&str]| {
            [&good[..], more]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (describe, pulse_value) = match index {
            0 => (describe(&["host", "good"]), "not JSON"),
            1 => (describe(&["host", &huge]), &*huge),
            2 => (describe(&["host", "x", "variation", "70000"]), "{}"),
            3 => (
                describe(&["host", "x", "started", "99999999999999999999"]),
                "\u{0}",
            ),
            4 => (["SET", &about, "x"].map(str::to_owned).to_vec(), "x"),
            _ => (describe(&["host", "x", "pid", "-1"]), "x"),
        };
        let describe: Vec<&str> = describe.iter().map(String::as_str).collect();
        command(&mut redis, &describe).await;
        match index {
            5 => command(&mut redis, &["HSET", &pulse, "a", "b"]).await,
            _ => command(&mut redis, &["SET", &pulse, pulse_value]).await,
        };
    }
    for garbage in ["p:x", "p:", &format!("p:{huge}")] {
        command(&mut redis, &["HSET", &meta, garbage, &huge]).await;
    }
    let list = stack.api().get(&format!("/v1/runs/{id}/agents")).await;
    let list = list["agents"].as_array().expect("agents").clone();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["host"], "good");
    assert!(list[0]["pulse"].is_null(), "{list:?}");
    assert_calm(&stack);
}
