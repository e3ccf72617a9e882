//! Postgres is restored to an older state: what Redis still holds is stored again, and workers
//! leave a database alone that is not complete yet.

use reqwest::StatusCode;
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{Api, send};
use runcast_tests::database::text;
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::shell_exit_code;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use uuid::Uuid;

use crate::viewer::assert_text;

const AUDIT_QUERY: &str = "SELECT count(*) FROM audit_log WHERE action = 'database.restored'";

/// Waits until a run has all of this output.
async fn wait_for_output(stack: &Stack, run: Uuid, expected: &str) {
    eventually("all output is stored", async || {
        let events = stack.database.events(run).await;
        let stored = String::from_utf8_lossy(&text(&events, Kind::Output)).into_owned();
        let there = (stored == expected).then_some(());
        there.ok_or(stored)
    })
    .await;
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_a_restored_database_lacks_are_stored_again_from_redis() {
    let mut stack = Stack::start().await;
    let backup = stack.folder().join("backup");
    let name = stack.database_name().to_owned();
    // One run goes on while the backup is made, and ends after it.
    let run = stack.api().create_run("over the backup").await.id;
    let goes_on = stack.folder().join("go");
    let script = format!(
        "seq 1 100; while ! [ -e {} ]; do sleep 0.05; done; seq 101 200",
        goes_on.display()
    );
    let mut wrap = stack.wrap(run, &["sh", "-c", &script]);
    wait_for_output(&stack, run, &numbers(1..=100)).await;
    stack.postgres.dump(&name, &backup).await;
    std::fs::write(&goes_on, []).expect("a file");
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    assert_text(
        &text(&stack.database.wait_sealed(run).await, Kind::Output),
        &numbers(1..=200),
    );
    // Another one begins and ends after it.
    let later = stack.api().create_run("after the backup").await.id;
    let mut wrap = stack.wrap(later, &["seq", "300"]);
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    stack.database.wait_sealed(later).await;
    let deleted = stack.api().create_run("deleted after the backup").await;
    let mut publisher = Publisher::new(
        deleted.publisher_connection().await,
        stack.keys(),
        deleted.id,
    );
    publisher.publish(&[output_line("gone\n")]).await;
    let path = format!("/v1/runs/{}", deleted.id);
    let answer = send(stack.api().request(reqwest::Method::DELETE, &path)).await;
    assert!(answer.status().is_success(), "{}", answer.status());

    stack.stop(Service::Worker).await;
    stack.postgres.make_empty(&name).await;
    stack.postgres.restore(&name, &backup).await;
    stack.reconnect_database().await;
    stack.start_service(Service::Worker).await;

    for (run, expected) in [(run, numbers(1..=200)), (later, numbers(1..=300))] {
        wait_for_output(&stack, run, &expected).await;
        let events = stack.database.wait_sealed(run).await;
        assert_text(&text(&events, Kind::Output), &expected);
        let state = stack.database.run(run).await;
        assert_eq!(state.status, "succeeded");
    }
    stack.database.wait_for_number(AUDIT_QUERY, 1).await;
    let logs = stack.logs(Service::Worker);
    assert!(logs.contains("restored to an older state"), "{logs}");
    let query = format!("SELECT count(*) FROM runs WHERE id = '{}'", deleted.id);
    assert_eq!(stack.database.query_number(&query).await, 0);
    let recovered = described(&stack.api(), later).await;
    assert_eq!(recovered["labels"]["recovered"], "true", "{recovered}");
}

async fn described(api: &Api, run: Uuid) -> Value {
    let answer = send(api.request(reqwest::Method::GET, &format!("/v1/runs/{run}"))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.expect("a description")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_write_no_schema_and_go_on_after_a_restore() {
    let mut stack = Stack::start().await;
    let backup = stack.folder().join("backup");
    let name = stack.database_name().to_owned();
    let leases = "SELECT count(*) FROM leases WHERE expires_at > now()";
    stack.postgres.dump(&name, &backup).await;
    stack.postgres.make_empty(&name).await;
    stack.reconnect_database().await;
    // All loops of the worker have met the empty database.
    eventually("the worker has noticed", async || {
        let logs = stack.logs(Service::Worker);
        let noticed = [
            "background jobs failed",
            "reconciling failed",
            "deletions failed",
        ];
        let has_all = noticed.iter().all(|failed| logs.contains(failed));
        has_all.then_some(()).ok_or(logs)
    })
    .await;
    let relations = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'";
    assert_eq!(
        stack.database.query_strings(relations).await,
        [] as [&str; 0]
    );
    stack.postgres.restore(&name, &backup).await;
    // The same worker goes on.
    let run = stack.api().create_run("after the restore").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&[output_line("stored\n")]).await;
    stack.database.wait_stored(run.id, last).await;
    stack.database.wait_for_number(leases, 2).await;
}
