//! The archive in an S3 bucket, and retention of archived runs.

use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, eventually_within};
use runcast_tests::process::ProcessSpec;
use runcast_tests::publisher::Publisher;
use runcast_tests::s3_server::S3Server;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::archive::{
    AFTER_FAILURES, JOBS_QUERY, KEPT_QUERY, ROWS_QUERY, remove_from_redis, sealed_run, snapshot,
    wait_archived, with_bucket, with_folder,
};

/// 24 MiB that do not compress: an object of several parts.
const LARGE_OUTPUT: &str = "head -c 25165824 /dev/urandom";

async fn in_bucket() -> (Stack, S3Server) {
    let mut stack = Stack::without_services().await;
    let server = S3Server::start(stack.folder()).await;
    with_bucket(&mut stack, server.port()).await;
    (stack, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_archives_runs_like_a_folder() {
    let (mut stack, server) = in_bucket().await;
    let run = sealed_run(&mut stack, "seq 1 3000; head -c 100000 /dev/urandom").await;
    let before = snapshot(&stack, run).await;
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    assert_eq!(stack.database.query_number(ROWS_QUERY).await, 0);
    assert_eq!(snapshot(&stack, run).await, before);
    let objects = server.objects().await;
    assert!(
        objects.len() == 1 && objects[0].starts_with("runs/2"),
        "{objects:?}"
    );
    assert!(stack.check().await.contains("ok  RUNCAST_ARCHIVE"));
    let logs = stack.service_spec(Service::Worker);
    assert!(
        logs.environment
            .iter()
            .any(|(name, _)| name == "AWS_SECRET_ACCESS_KEY")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_upload_is_aborted() {
    let mut stack = Stack::without_services().await;
    let server = S3Server::start(stack.folder()).await;
    let chaos = stack.proxy_port(server.port()).await;
    with_bucket(&mut stack, chaos.port()).await;
    let run = sealed_run(&mut stack, LARGE_OUTPUT).await;
    let rows = stack.database.query_number(ROWS_QUERY).await;
    chaos.block_requests(b"partNumber=2");
    stack.start_service(Service::Worker).await;
    chaos.wait_for_hits(1).await;
    stack.kill(Service::Worker);
    assert_eq!(server.uploads().await.len(), 1, "half an upload");
    assert_eq!(stack.database.query_number(ROWS_QUERY).await, rows);
    chaos.block_requests(b"nothing that is ever said");
    chaos.cut();

    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    stack.stop(Service::Worker).await;
    stack.start_service(Service::Worker).await;
    eventually("the half upload is gone", async || {
        let uploads = server.uploads().await;
        uploads
            .is_empty()
            .then_some(())
            .ok_or(format!("{uploads:?}"))
    })
    .await;
    assert_eq!(server.objects().await.len(), 1);
    let events = snapshot(&stack, run).await.backwards.len();
    assert_eq!(i64::try_from(events), Ok(rows));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_store_delays_but_loses_nothing() {
    let mut stack = Stack::without_services().await;
    let server = S3Server::start(stack.folder()).await;
    let chaos = stack.proxy_port(server.port()).await;
    with_bucket(&mut stack, chaos.port()).await;
    let run = sealed_run(&mut stack, "seq 1 1000").await;
    let before = snapshot(&stack, run).await;
    chaos.refuse();
    stack.start_service(Service::Worker).await;
    let failed =
        "SELECT count(*) FROM tasks.jobs WHERE task_identifier = 'archive_run' AND attempts > 0
                     AND last_error LIKE '%s3://archive/runs cannot be used%'";
    eventually_within(AFTER_FAILURES, "the failure is reported", async || {
        let number = stack.database.query_number(failed).await;
        (number == 1).then_some(()).ok_or(format!("{number}"))
    })
    .await;
    assert_eq!(stack.database.query_number(KEPT_QUERY).await, 0);
    chaos.forward();
    wait_archived(&stack, 1).await;
    assert_eq!(snapshot(&stack, run).await, before);
}

/// Makes a run look as if created with these labels this many days ago. Its events do not move with
/// it: runs that need events publish them under the new id.
async fn old_run(stack: &Stack, days: u32, labels: &str, events: u64) -> Uuid {
    let created = format!(
        "SELECT uuid_v7_floor(now() - interval '{days} days')::text FROM make_events_partition((now() AT TIME ZONE 'UTC')::date - {days})"
    );
    let id = stack.database.query_strings(&created).await.remove(0);
    // Runs of one day differ in their last bits.
    let id: Uuid = id.parse().expect("an id");
    let id = Uuid::from_u128(
        id.as_u128() | 0x7000_8000_0000_0000_0000 | (Uuid::new_v4().as_u128() & 0xffff_ffff),
    );
    stack
        .database
        .execute(&format!(
            "INSERT INTO runs (id, name, labels, created_by) VALUES ('{id}', 'old', '{labels}', 'story');
             INSERT INTO variations (run_id, variation) VALUES ('{id}', 0);"
        ))
        .await;
    if events > 0 {
        let connection = stack.redis.connection().await;
        let mut publisher = Publisher::new(connection, stack.keys(), id);
        let last: EventId = publisher.publish(&numbered_lines("old", 1..=events)).await;
        stack.database.wait_stored(id, last).await;
    }
    id
}

/// Ends and seals a run an hour ago, and removes it from Redis.
async fn seal(stack: &Stack, run: Uuid) {
    stack
        .database
        .execute(&format!(
            "UPDATE runs SET status = 'succeeded', ended_at = now(), sealed_at = now() - interval '1 hour' WHERE id = '{run}'"
        ))
        .await;
    remove_from_redis(stack, run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fully_archived_day_is_truncated() {
    let (mut stack, _folder) = with_folder().await;
    let runs = [
        old_run(&stack, 9, "{}", 50).await,
        old_run(&stack, 9, "{}", 60).await,
    ];
    for run in runs {
        seal(&stack, run).await;
    }
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 2).await;
    assert_eq!(stack.database.query_number(ROWS_QUERY).await, 0);
    for (run, events) in runs.into_iter().zip([50, 60]) {
        assert_eq!(snapshot(&stack, run).await.backwards.len(), events);
    }
    eventually("the worker logs how", async || {
        let logs = stack.logs(Service::Worker);
        let output = logs.contains("dropped all rows of a day that is archived");
        output.then_some(()).ok_or(logs)
    })
    .await;
    // The partition of that day still receives events of a run that continues.
    let late = old_run(&stack, 9, "{}", 5).await;
    assert_eq!(stack.database.events(late).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_follows_label_rules() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Persister).await;
    let gone = [
        old_run(&stack, 9, r#"{"project": "search", "team": "ml"}"#, 20).await,
        old_run(&stack, 40, "{}", 3).await,
        old_run(&stack, 40, r#"{"team": "other"}"#, 0).await,
    ];
    let stay = [
        old_run(&stack, 9, "{}", 20).await,
        old_run(&stack, 9, r#"{"team": "ml"}"#, 1).await,
        old_run(&stack, 3, r#"{"project": "search"}"#, 1).await,
        old_run(&stack, 50, r#"{"keep": "yes", "project": "search"}"#, 1).await,
    ];
    stack.set(Service::Worker, "RUNCAST_RETENTION", "30d");
    stack.set(
        Service::Worker,
        "RUNCAST_RETENTION_RULES",
        "keep=yes:forever,project=search:7d,team=ml:90d",
    );
    stack.start_service(Service::Worker).await;
    let left = "SELECT count(*) FROM runs";
    stack.database.wait_for_number(left, 4).await;
    stack.database.wait_for_number(JOBS_QUERY, 0).await;
    for run in gone {
        assert!(stack.database.events(run).await.is_empty());
    }
    for (run, events) in stay.into_iter().zip([20, 1, 1, 1]) {
        assert_eq!(stack.database.events(run).await.len(), events);
    }
    let days = "SELECT count(*) FROM pg_class WHERE relname = 'events_' || to_char((now() AT TIME ZONE 'UTC')::date - 40, 'YYYYMMDD')";
    assert_eq!(
        stack.database.query_number(days).await,
        0,
        "the day is empty"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_retention_rules_are_refused_at_start() {
    let stack = Stack::without_services().await;
    for (rules, named) in [
        ("project=search", "project=search"),
        ("a=b:1d,c=d:soon", "c=d:soon"),
    ] {
        let spec = stack
            .service_spec(Service::Worker)
            .with_env([("RUNCAST_RETENTION_RULES", rules)]);
        let mut worker = ProcessSpec {
            name: "refused".to_owned(),
            ..spec
        }
        .start(stack.folder());
        let status = worker.wait_exit(WAIT_DEADLINE).await;
        assert_eq!(status.code(), Some(78));
        let logs = worker.logs();
        assert!(
            logs.contains("RUNCAST_RETENTION_RULES") && logs.contains(named),
            "{logs}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_run_and_object_are_deleted_despite_crash() {
    let (mut stack, server) = in_bucket().await;
    let runs = [
        old_run(&stack, 9, r#"{"project": "search"}"#, 20).await,
        old_run(&stack, 9, "{}", 20).await,
    ];
    for run in runs {
        seal(&stack, run).await;
    }
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 2).await;
    stack.stop(Service::Worker).await;
    assert_eq!(server.objects().await.len(), 2);

    stack.set(
        Service::Worker,
        "RUNCAST_RETENTION_RULES",
        "project=search:7d",
    );
    // The run and its object are deleted, but that is not committed yet.
    let point = "DELETE ON archives FOR EACH ROW";
    let barrier = stack.database.barrier("forgetting", point, "true").await;
    stack.start_service(Service::Worker).await;
    barrier.wait_reached().await;
    stack.kill(Service::Worker);
    barrier.terminate_waiters().await;
    assert_eq!(
        stack
            .database
            .query_number("SELECT count(*) FROM runs")
            .await,
        1
    );
    assert_eq!(
        stack
            .database
            .query_number("SELECT count(*) FROM archives WHERE state = 'leaving'")
            .await,
        1
    );

    stack.start_service(Service::Worker).await;
    let known = "SELECT count(*) FROM archives";
    eventually_within(Duration::from_secs(120), known, async || {
        let number = stack.database.query_number(known).await;
        (number == 1).then_some(()).ok_or(format!("{number}"))
    })
    .await;
    let objects = server.objects().await;
    assert!(
        objects.len() == 1 && objects[0].contains(&runs[1].to_string()),
        "{objects:?}"
    );
    assert_eq!(snapshot(&stack, runs[1]).await.backwards.len(), 20);
}
