//! Persisters that fail at the worst moments, or run beside each other. Each event is stored once,
//! byte for byte. Also their metrics.
//!
//! One script acknowledges and trims, so no moment lies between the two: the last possible one is
//! after the script, before its reply.

use nix::sys::signal::Signal;
use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::shell_exit_code;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

/// A stack whose persister reaches Postgres through a proxy with a fault.
async fn broken_before_postgres(tell: impl FnOnce(&runcast_tests::chaos::ChaosProxy)) -> Stack {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_postgres().await;
    let address = stack.database_url(chaos.port());
    stack.set(Service::Persister, "DATABASE_URL", address);
    for service in Service::ALL {
        stack.start_service(service).await;
    }
    tell(&chaos);
    let run = stack.api().create_run("broken").await.id;
    let mut wrap = stack.wrap(run, &["seq", "-f", "line %g", "1000"]);
    chaos.wait_for_hits(1).await;
    stack.kill(Service::Persister);
    // The kernel closes the connections of a killed process; the proxy must cut its own.
    chaos.cut();
    let stored = stack.database.run(run).await;
    assert_eq!(stored.events, 0, "it was killed before its first commit");
    stack.unset(Service::Persister, "DATABASE_URL");
    stack.start_service(Service::Persister).await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    assert_each_line_once(&stack, run).await;
    stack
}

async fn assert_each_line_once(stack: &Stack, run: Uuid) {
    let output = numbers("line", 1..=1000);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&viewer.text("output"), &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_killed_before_commit() {
    drop(broken_before_postgres(|chaos| chaos.block_requests(b"COMMIT")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_killed_during_copy() {
    drop(broken_before_postgres(|chaos| chaos.block_requests(b"PGCOPY")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cut_during_copy_and_before_commit_reply() {
    for pattern in [&b"PGCOPY"[..], b"COMMIT"] {
        let mut stack = Stack::without_services().await;
        let chaos = stack.proxy_postgres().await;
        let address = stack.database_url(chaos.port());
        stack.set(Service::Persister, "DATABASE_URL", address);
        for service in Service::ALL {
            stack.start_service(service).await;
        }
        chaos.drop_replies(1, pattern);
        let run = stack.api().create_run("cut off").await.id;
        let mut wrap = stack.wrap(run, &["seq", "-f", "line %g", "1000"]);
        chaos.wait_for_hits(1).await;
        assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
        assert_each_line_once(&stack, run).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_killed_before_settle_reply() {
    let settle = redis::Script::new(include_str!("../../common/src/scripts/settle.lua"));
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_redis().await;
    stack.set(
        Service::Persister,
        "REDIS_URL",
        stack.redis.url(chaos.port()),
    );
    for service in Service::ALL {
        stack.start_service(service).await;
    }
    chaos.drop_replies(1, settle.get_hash().as_bytes());
    let run = stack.api().create_run("told").await.id;
    let mut wrap = stack.wrap(run, &["seq", "-f", "line %g", "1000"]);
    chaos.wait_for_hits(1).await;
    stack.kill(Service::Persister);
    stack.unset(Service::Persister, "REDIS_URL");
    stack.start_service(Service::Persister).await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    assert_each_line_once(&stack, run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_terminates_all_connections() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("restarted").await.id;
    let mut stack = stack;
    let command = ticking(300, "0.01");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    for events in [20, 80, 140, 200] {
        stack.database.wait_stored_events(run, events).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'runcastd'";
        stack.database.execute(end).await;
    }
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &numbers("tick", 1..=300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_resumed_after_losing_its_claim_does_no_harm() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let folder = stack.folder().join("sleeper");
    std::fs::create_dir(&folder).expect("a folder for its logs");
    let mut paused = stack.service_spec(Service::Persister).start(&folder);
    paused
        .wait_for_line("Runcast persister is ready", WAIT_DEADLINE)
        .await;
    let run = stack.api().create_run("slept").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&numbered_lines("event", 1..=3)).await;
    stack.database.wait_stored(run.id, last).await;

    // It is the only consumer of the ready queue, so Redis assigns it the run although it is
    // stopped.
    paused.signal(Signal::SIGSTOP);
    publisher.publish(&numbered_lines("event", 4..=6)).await;
    stack.start_service(Service::Persister).await;
    let last = publisher.publish(&numbered_lines("event", 7..=9)).await;
    stack.database.wait_stored(run.id, last).await;
    paused.signal(Signal::SIGCONT);
    let mut last = last;
    for number in 10..=60 {
        last = publisher
            .publish(&numbered_lines("event", number..=number))
            .await;
    }
    stack.database.wait_stored(run.id, last).await;
    let seqs: Vec<u64> = stack
        .database
        .events(run.id)
        .await
        .iter()
        .map(|event| event.producer_seq)
        .collect();
    assert_eq!(seqs, (1..=60).collect::<Vec<u64>>());
    paused.signal(Signal::SIGTERM);
    assert!(
        paused.wait_exit(WAIT_DEADLINE).await.success(),
        "{}",
        paused.logs()
    );
}

/// The value of a metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
    value.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_exposes_metrics() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    stack.set(Service::Persister, "RUNCAST_METRICS_LISTEN", "127.0.0.1:0");
    let mut persister = stack.service_spec(Service::Persister).start(stack.folder());
    let address = persister.wait_for_line("metrics at ", WAIT_DEADLINE).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(WAIT_DEADLINE)
        .build();
    let client = client.expect("an HTTP client");
    let scrape = async || {
        let response = client.get(&address).send().await.expect("a response");
        assert_eq!(response.status(), 200);
        response.text().await.expect("text")
    };
    let run = stack.api().create_run("told").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut lines = numbered_lines("event", 1..=99);
    lines.push(b"no event".to_vec());
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;
    let metrics = eventually("the counters have moved", async || {
        let metrics = scrape().await;
        let rows = value(&metrics, "runcast_persister_rows_total");
        if rows >= 100.0 {
            Ok(metrics)
        } else {
            Err(metrics)
        }
    })
    .await;
    for (name, expected) in [
        ("redis_buffer_writes_total", 100.0),
        ("redis_buffer_replays_total", 0.0),
        ("runcast_persister_rows_total", 100.0),
        ("runcast_persister_dead_letters_total", 1.0),
        ("runcast_persister_transaction_rows_sum", 100.0),
        ("runcast_persister_lag_seconds_count", 1.0),
        ("redis_buffer_depth", 0.0),
        ("runcast_redis_healthy", 1.0),
    ] {
        let received = value(&metrics, name);
        assert!(
            (received - expected).abs() < 0.5,
            "{name}: {received}\n{metrics}"
        );
    }
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}
