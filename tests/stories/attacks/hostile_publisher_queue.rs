//! A hostile publisher writes to the ready queue of a partition, which all runs of it share.

use redis::aio::MultiplexedConnection;
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT, RunKeys};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::eventually;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use super::fixtures::assert_calm;
use super::hostile_publisher::{Witness, command, counter, log_lines, with_metrics};

/// Entries of garbage that are written at once.
const FLOOD: usize = 100_000;

/// A run id of this partition that no run has.
fn unknown_run(partition: usize) -> Uuid {
    loop {
        let run = Uuid::now_v7();
        if Keys::partition(run) == partition {
            return run;
        }
    }
}

async fn add(redis: &mut MultiplexedConnection, ready: &str, fields: &[&[u8]]) {
    let mut add = redis::cmd("XADD");
    add.arg(ready).arg("*").arg(fields);
    let () = add.exec_async(redis).await.expect("XADD");
}

/// Waits until nothing waits in the queue of the partition.
async fn wait_empty(redis: &mut MultiplexedConnection, ready: &str) {
    eventually("the ready queue is empty", async || {
        let mut length = redis::cmd("XLEN");
        let length: Result<u64, _> = length.arg(ready).query_async(redis).await;
        match length {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Waits until the queue takes entries.
async fn wait_writable(redis: &mut MultiplexedConnection, ready: &str) {
    eventually("the partition takes entries again", async || {
        let mut add = redis::cmd("XADD");
        add.arg(ready).arg(&["*", "run", "x"]);
        let added: Result<String, _> = add.query_async(redis).await;
        added.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_ready_queue_stops_nobody() {
    let mut stack = Stack::without_services().await;
    let metrics = with_metrics(&mut stack, Service::Persister);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;
    let partition = witness.partition();
    let ready = stack.keys().ready(partition);
    let mut redis = stack.redis.connection().await;

    // Entries that name no run of the partition.
    let elsewhere = unknown_run((partition + 1) % PARTITION_COUNT).to_string();
    let huge = vec![b'x'; 2 * 1024 * 1024];
    for fields in [
        &[&b"a"[..], b"b"][..],
        &[b"run", b"not an id"],
        &[b"run", b"\xff\xfe"],
        &[b"run", &huge],
        &[&huge, b"x"],
        &[b"run", elsewhere.as_bytes()],
        &[b"run", elsewhere.as_bytes(), b"more", b"x"],
    ] {
        add(&mut redis, &ready, fields).await;
    }
    // A run that Postgres does not know, with a stream: it stays, out of the queue.
    let unknown = unknown_run(partition);
    let keys: RunKeys = stack.keys().run(unknown);
    let connection = stack.redis.connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), unknown);
    publisher.publish(&numbered_lines("lost", 1..=3)).await;
    // Garbage in bulk, each second entry a run that does not exist.
    for chunk in 0..FLOOD / 1000 {
        let mut flood = redis::pipe();
        for number in 0..1000 {
            let run = match number % 2 {
                0 => format!("{chunk} {number}"),
                _ => unknown_run(partition).to_string(),
            };
            let add = flood.cmd("XADD").arg(&ready).arg("*");
            add.arg("run").arg(run).ignore();
        }
        let () = flood.exec_async(&mut redis).await.expect("a flood");
    }
    wait_empty(&mut redis, &ready).await;
    let mut length = redis::cmd("XLEN");
    let left: u64 = length
        .arg(&keys.stream)
        .query_async(&mut redis)
        .await
        .expect("XLEN");
    assert_eq!(left, 1, "the stream of an unknown run is left alone");
    witness.assert_unharmed(&stack).await;
    let unknown_runs = counter(&metrics, "runcast_persister_unknown_runs_total").await;
    assert!(unknown_runs > FLOOD as u64 / 2, "{unknown_runs}");
    let skipped = counter(&metrics, "runcast_persister_skipped_ready_entries_total").await;
    assert!(skipped >= FLOOD as u64 / 2 + 7, "{skipped}");
    for words in ["does not know this run", "removed from the ready queue"] {
        let lines = log_lines(&stack, Service::Persister, words);
        assert!((1..=3).contains(&lines), "{lines} lines: {words}");
    }
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_queue_of_another_type_or_without_ids_is_made_anew() {
    let mut stack = Stack::without_services().await;
    let metrics = with_metrics(&mut stack, Service::Persister);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;
    let partition = witness.partition();
    let ready = stack.keys().ready(partition);
    let other = stack.keys().ready((partition + 1) % PARTITION_COUNT);
    let mut redis = stack.redis.connection().await;
    const TOP: &str = "18446744073709551615-18446744073709551615";

    // A key of another type in a partition without runs stops the read of all partitions.
    command(&mut redis, &["SET", &other, "x"]).await;
    wait_empty(&mut redis, &other).await;
    // An id that uses up all others stops every append of the partition.
    command(&mut redis, &["XADD", &other, "MAXLEN", "0", TOP, "a", "b"]).await;
    wait_writable(&mut redis, &other).await;
    command(&mut redis, &["XADD", &other, TOP, "a", "b"]).await;
    wait_writable(&mut redis, &other).await;
    // Who removes wake-ups delays their runs, but they come back.
    let run = stack.api().create_run("unwoken").await;
    let ready_of_run = stack.keys().run(run.id).ready;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    stack.stop(Service::Persister).await;
    let last = publisher.publish(&numbered_lines("line", 1..=3)).await;
    let trim = ["XADD", &ready_of_run, "MAXLEN", "0", "*", "a", "b"];
    command(&mut redis, &trim).await;
    command(&mut redis, &["XADD", &ready_of_run, "*", "a", "b"]).await;
    stack.start_service(Service::Persister).await;
    stack.database.wait_stored(run.id, last).await;

    // The own partition of the witness, for a moment: its appends fail, and are tried again by an
    // agent. The witness does not, so it has published before.
    let partition_of_witness = ready.clone();
    witness.assert_unharmed(&stack).await;
    command(&mut redis, &["SET", &partition_of_witness, "x"]).await;
    wait_empty(&mut redis, &partition_of_witness).await;
    let skipped = counter(&metrics, "runcast_persister_skipped_ready_entries_total").await;
    assert!(skipped > 0, "{skipped}");
    assert_calm(&stack);
}
