//! Servers that answer but refuse to write: all parts take it for an outage, say why, and go on
//! within seconds after it.

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_common::redis;
use runcast_tests::api::{Api, problem, send};
use runcast_tests::database::text;
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::shell_exit_code;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::json;

use crate::viewer::assert_text;

/// Asks for a new run until the answer is 503, and returns its detail.
async fn refusal(api: &Api) -> String {
    eventually("new runs are refused", async || {
        let request = api.request(Method::POST, "/v1/runs");
        let answer = send(request.json(&json!({"name": "refused"}))).await;
        let status = answer.status();
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(format!("the status is {status}"));
        }
        assert!(answer.headers().contains_key(RETRY_AFTER));
        Ok(problem(answer, status).await)
    })
    .await
}

/// Waits until the metrics of the persister show this reason for cycles that failed.
async fn wait_for_reason(metrics: &str, reason: &str) {
    let api = Api::new(metrics.strip_suffix("/metrics").expect("a URL"), "");
    let name = format!("runcast_persister_failed_cycles_total{{reason=\"{reason}\"}} ");
    eventually("the reason is counted", async || {
        let answer = send(api.anonymous(Method::GET, "/metrics")).await;
        let shown = answer.text().await.expect("metrics");
        let count = shown.lines().find_map(|line| line.strip_prefix(&name));
        let count = count.and_then(|count| count.parse::<f64>().ok());
        let is_counted = count.expect("it is there from the beginning") > 0.0;
        is_counted.then_some(()).ok_or(shown)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_postgres_is_an_outage_that_ends_by_itself() {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Persister, "RUNCAST_METRICS_LISTEN", "127.0.0.1:0");
    stack.start_all().await;
    let logs = stack.logs(Service::Persister);
    let metrics = logs.lines().find_map(|line| line.split_once("metrics at "));
    let metrics = metrics.expect("the address of metrics").1.to_owned();
    let run = stack.api().create_run("read-only").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&[output_line("before\n")]).await;
    stack.database.wait_stored(run.id, last).await;

    let name = stack.database_name().to_owned();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    stack.postgres.execute_as_admin(&read_only).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    stack.database.execute(cut).await;
    let last = publisher.publish(&[output_line("meanwhile\n")]).await;
    let detail = refusal(&stack.api()).await;
    assert!(detail.contains("read-only"), "{detail}");
    wait_for_reason(&metrics, "postgres_read_only").await;
    let readyz = Api::new(metrics.strip_suffix("/metrics").expect("a URL"), "");
    let answer = send(readyz.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let state = answer.text().await.expect("a state");
    assert!(state.contains("read-only"), "{state}");

    // Sessions that are open stay read-only; new ones are not.
    let reset = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    stack.postgres.execute_as_admin(&reset).await;
    stack.database.wait_stored(run.id, last).await;
    eventually("new runs are accepted", async || {
        let request = stack.api().request(Method::POST, "/v1/runs");
        let answer = send(request.json(&json!({"name": "accepted"}))).await;
        let status = answer.status();
        (status == StatusCode::CREATED)
            .then_some(())
            .ok_or(status.to_string())
    })
    .await;
    let logs = stack.logs(Service::Gateway);
    let warnings = logs.matches("Postgres does no work").count();
    assert!((1..=2).contains(&warnings), "{logs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_run_delays_no_other() {
    let stack = Stack::start().await;
    let locked = stack.api().create_run("locked").await;
    let free = stack.api().create_run("free").await;
    let mut publisher =
        Publisher::new(locked.publisher_connection().await, stack.keys(), locked.id);
    let lock = stack.database.lock_run(locked.id).await;
    let last = publisher.publish(&[output_line("waits\n")]).await;
    let mut other = Publisher::new(free.publisher_connection().await, stack.keys(), free.id);
    for number in 0..5 {
        publisher.publish(&[output_line("waits\n")]).await;
        let stored = other.publish(&[output_line(&format!("{number}\n"))]).await;
        stack.database.wait_stored(free.id, stored).await;
    }
    assert_eq!(stack.database.run(locked.id).await.events, 0);
    lock.rollback().await.expect("the lock ends");
    stack.database.wait_stored(locked.id, last).await;
    stack.database.wait_stored_events(locked.id, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_without_replicas_is_an_outage_and_costs_no_event() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("no replicas").await.id;
    let numbers: String = (1..=100).map(|number| format!("{number}\n")).collect();
    let script = "for i in $(seq 100); do echo $i; sleep 0.05; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    stack.database.wait_stored_events(run, 10).await;
    let mut connection = stack.redis.connection().await;
    let mut set = async |replicas: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg(&["SET", "min-replicas-to-write", replicas]);
        let () = command
            .query_async(&mut connection)
            .await
            .expect("a setting");
    };
    set("1").await;
    let other = api.create_run("over http").await.id;
    let publish = async || {
        let request = api.request(Method::POST, &format!("/v1/runs/{other}/events"));
        let request = request.header(CONTENT_TYPE, "text/plain");
        send(request.body("by http\n")).await
    };
    let refused = publish().await;
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let detail = problem(refused, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(detail.contains("too few replicas"), "{detail}");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    set("0").await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &numbers);
    let warnings = wrap.logs().matches("WARN").count();
    assert!(warnings <= 3, "{}", wrap.logs());
    assert_eq!(publish().await.status(), StatusCode::OK);
}
